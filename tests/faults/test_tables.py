"""Processes that finish together lose no row of each other's. The long form: `python tests/faults tables`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tables import finish_together


@pytest.mark.parametrize("locks", [True, False])
def test_no_row_is_missing_from_the_tables(tmp_path: Path, locks: bool) -> None:
    assert finish_together(tmp_path, 5, seed=0, locks=locks)[0] == 0
