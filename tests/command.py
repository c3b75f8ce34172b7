"""The command line as a test calls it."""

from __future__ import annotations

import pytest

from benchmark.cli import main

HURRIED = {
    "linear_segmentation.penalties": "[1e-2, 1e-4]", "classification.penalties": "[1e-1, 1e-3]",
    "normals.penalties": "[1e-1, 1e-3]", "depth.penalties": "[1e-1, 1e-3]", "depth.bin_steps": "20",
    "linear_segmentation.judged_images": "3", "classification.judged_images": "3",
}  # fmt: skip


def hurried(*tasks: str) -> list[str]:
    """Words for tests that read no number off a fast preset: two penalties, judged on few pictures, few steps."""
    return [w for f, value in HURRIED.items() if f.split(".")[0] in tasks for w in ("--set", f"{f}={value}")]


def bench(*words: str) -> int:
    """The exit code of `bench WORDS`, run in this process; what it says is left where it is."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(stop.value.code or 0)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of `bench WORDS`."""
    code, out = bench(*words), capsys.readouterr()
    return code, out.out, out.err
