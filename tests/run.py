"""Every check there is, in one go: ruff, import-linter, then mypy beside pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
FOLDERS = ("benchmark", "adapters", "tasks", "tests")
STEPS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("lint-imports",),
)
BESIDE = ("mypy", *FOLDERS)
# In the order of names: by number of tests, the files of one long test (tests/faults) would come last, on one core.
LAST = ("pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


def install_chromium() -> None:
    """The leaderboard's browser test needs Chromium; a CI machine whose user is root can install it by itself."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found or not os.environ.get("CI") or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
        subprocess.run(["apt-get", *words], stdout=subprocess.DEVNULL, check=False)


def start(name: str, *words: str, **how: Any) -> subprocess.Popen[str]:
    """One step, begun."""
    tool = BIN / name
    print("+", name, *words, flush=True)
    return subprocess.Popen([str(tool) if tool.exists() else name, *words], cwd=ROOT, text=True, **how)


def main() -> int:
    """The exit code of the first step that fails, else 0."""
    install_chromium()
    for step in STEPS:
        if code := start(*step).wait():
            return code
    beside = start(*BESIDE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    code = start(*LAST).wait()
    said, _ = beside.communicate()
    print(BESIDE[0], said, sep="\n", flush=True)
    return code or beside.returncode


if __name__ == "__main__":
    sys.exit(main())
