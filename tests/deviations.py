"""How far each encoder is from what it is held to: the parity tests measure it, and this command keeps it.

`python tests/deviations.py [FILE …]` runs them and writes docs/deviations.json, from which docs/models.md is made: the
largest deviation of any value, as a part of the largest value of the reference. Tests whose library is not installed
keep what stands there.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "deviations.json"
LARGEST: dict[str, float] = {}  # test -> the largest deviation in this process
WHAT = ("own", "other", "odd", "texts")  # sizes of pictures, and texts, that an entry of docs/references.toml names
TESTS = (
    "parity/test_dinotxt.py", "parity/test_extras_parity.py", "parity/test_families_parity.py",
    "parity/test_franca.py", "parity/test_naflex.py", "parity/test_open_clip_towers.py", "parity/test_pe.py",
    "parity/test_radio.py", "parity/test_tips_reference.py", "parity/test_vjepa2.py", "test_hub_zoo.py",
)  # fmt: skip


def held(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-6) -> None:
    """Asserts that `ours` is `theirs` but for `tolerance` of the largest value, and remembers how far it is off."""
    theirs = theirs.reshape(ours.shape)
    gap = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    remember(gap)
    assert gap <= tolerance


def remember(gap: float) -> None:
    """One deviation of the test that runs now: of this case of it, and of all its cases together."""
    case = os.environ["PYTEST_CURRENT_TEST"].partition(" (")[0]
    for test in {case, case.partition("[")[0]}:
        LARGEST[test] = max(LARGEST.get(test, 0.0), gap)


def named() -> set[str]:
    """The tests that docs/references.toml names, some of them one case of several."""
    entries = tomllib.loads((ROOT / "docs" / "references.toml").read_text(encoding="utf-8"))["reference"]
    return {entry[what] for entry in entries for what in WHAT if what in entry}


def main() -> int:
    """The exit code of pytest; the file is only written where all tests passed."""
    import deviations  # the copy that the tests import: this one is __main__

    names = sys.argv[1:] or TESTS
    code = int(pytest.main(["-q", "-p", "no:cacheprovider", *(str(ROOT / "tests" / name) for name in names)]))
    if code == 0:
        kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
        kept |= {test: float(f"{gap:.1e}") for test, gap in deviations.LARGEST.items()}
        kept = {test: gap for test, gap in kept.items() if test in named()}
        FILE.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
