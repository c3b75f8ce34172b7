"""The worked pages of docs/contributing, applied to a copy of the sources, do what they say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import hurried

from benchmark.registry import tasks

ROOT = Path(__file__).parents[1]
MOST = {"family": 4, "dataset": 4, "task": 6}  # files that a page may ask for
FILE = re.compile(r"^\*\*`([^`]+)`\*\* \((new|added)\)[^\n]*\n\n```\w*\n(.*?)^```", re.S | re.M)


@pytest.mark.parametrize("name", MOST)
def test_a_worked_page_is_a_change_that_works(name: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "contributing" / f"{name}.md").read_text(encoding="utf-8")
    tree = tmp_path / "tree"
    weights = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.npz")
    for folder in ("benchmark", "adapters", "tasks"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=weights)
    (tree / "tests").mkdir()
    for name_of in ("tests/miniatures.py", "pyproject.toml"):
        shutil.copy(ROOT / name_of, tree / name_of)
    files = FILE.findall(page)
    assert 2 <= len(files) <= MOST[name]
    for path, how, text in files:
        assert (tree / path).exists() == (how == "added"), path
        (tree / path).parent.mkdir(exist_ok=True)
        with open(tree / path, "a", encoding="utf-8") as f:
            f.write(("\n\n" if how == "added" and path.endswith(".py") else "\n" if how == "added" else "") + text)
    env = {**os.environ, "PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (tmp_path / "work").mkdir()

    def does(*words: str, at: Path = tmp_path / "work") -> str:
        done = subprocess.run([sys.executable, *words], cwd=at, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    if name == "dataset":
        paint = "import sys; sys.path.insert(0, sys.argv[1]); import miniatures, pathlib; "
        does("-c", f"{paint}miniatures.swatches(pathlib.Path('data'))", str(tree / "tests"))
        does("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", at=tree)
    lines = [shlex.split(line)[1:] for line in re.findall(r"^bench .*$", page, re.M)]
    out = [does("-m", "benchmark.cli", *words, *(hurried(*tasks()) if "--suite" in words else [])) for words in lines]
    assert len(out) >= 2 and re.search(r"\b[1-9]\d* rows? made", out[-1])
    python = [path for path, _, _ in files if path.endswith(".py") and not path.startswith("tests/")]
    does("-m", "ruff", "check", *python, at=tree)
