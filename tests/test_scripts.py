"""The leaderboard's scripts are JavaScript, each and all of them as the page holds them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmark.leaderboard.page import SCRIPTS

ASSETS = Path(__file__).parents[1] / "benchmark" / "leaderboard" / "assets"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_every_script_of_the_page_parses(tmp_path: Path) -> None:
    whole = tmp_path / "page.js"
    texts = [(ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS]
    whole.write_text('(() => {\n"use strict";\n' + "\n".join(texts) + "\n})();\n", encoding="utf-8")
    for path in (*(ASSETS / name for name in SCRIPTS), whole):
        done = subprocess.run(["node", "--check", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_no_script_is_left_out() -> None:
    assert {path.name for path in ASSETS.glob("*.js")} == set(SCRIPTS)
