"""One flipped bit in every kind of stored file: never scored. The long form: `python tests/faults flips`."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import KINDS, Kind, try_flips


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_flipped_bit_changes_nothing_that_is_used(tmp_path: Path, kind: Kind) -> None:
    found = try_flips(kind, tmp_path, 20, seed=1)
    assert sum(found.values()) == 20
