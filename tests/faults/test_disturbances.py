"""Disks, handles, clocks, locks and neighbours, in short. The long form: `python tests/faults disturb`."""

from __future__ import annotations

from pathlib import Path

from disturbances import BEARING, REFUSING, disturb
from jobs import JOBS


def test_the_same_rows_whatever_disturbs(tmp_path: Path) -> None:
    assert disturb(JOBS["scenes"].brief, tmp_path, 1, seed=0) == len(REFUSING) + len(BEARING) + 2
