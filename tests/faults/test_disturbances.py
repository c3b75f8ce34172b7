"""Disks, handles, clocks, locks and neighbours, in short. The long form: `python tests/faults disturb`."""

from __future__ import annotations

from disturbances import BEARING, REFUSING
from test_kills import FAULTS, run


def test_the_same_rows_whatever_disturbs() -> None:
    said = run(str(FAULTS), "disturb", "--brief", "--rounds", "1")
    assert f"{len(REFUSING) + len(BEARING) + 2} disturbed runs of scenes, 0 differ" in said
