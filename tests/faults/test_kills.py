"""kill -9 and the same command again, in short. The long form: `python tests/faults kills`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from children import start, wait
from jobs import JOBS, one_head
from kills import kill


@pytest.mark.parametrize("name", JOBS)
def test_after_kills_the_same_command_ends_as_an_undisturbed_one(tmp_path: Path, name: str) -> None:
    assert kill(JOBS[name].brief, tmp_path, 2, seed=3, twice=False).struck == 2


def test_a_kill_between_a_row_and_the_removal_of_its_heads_state_leaves_nothing(tmp_path: Path) -> None:
    for again in (False, True):
        assert wait(start(lambda: one_head(tmp_path / "work"), tmp_path), tmp_path).code == 0
        (row,) = tmp_path.rglob("result.json")
        left = tmp_path / "work" / "cache" / "heads" / json.loads(row.read_text())["request"]
        assert not left.exists()
        if not again:
            left.mkdir(parents=True)
            (left / "head.safetensors").write_bytes(b"half")
