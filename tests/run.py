"""Every check there is, in one go: ruff, mypy, import-linter, pytest. Stops at the first that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
FOLDERS = ("benchmark", "adapters", "tasks", "tests")
STEPS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy", *FOLDERS),
    ("lint-imports",),
    # In the order of names: by number of tests, the files of one long test (tests/faults) would come last, on one core.
    ("pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
)


def install_chromium() -> None:
    """The leaderboard's browser test needs Chromium; a CI machine whose user is root can install it by itself."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found or not os.environ.get("CI") or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium"]):
        subprocess.run(["apt-get", *words], stdout=subprocess.DEVNULL, check=False)


def main() -> int:
    """The exit code of the first step that fails, else 0."""
    install_chromium()
    for name, *words in STEPS:
        tool = BIN / name
        print("+", name, *words, flush=True)
        code = subprocess.run([str(tool) if tool.exists() else name, *words], cwd=ROOT).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
