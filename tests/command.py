"""The command line as a test calls it."""

from __future__ import annotations

import pytest

from benchmark.cli import main


def bench(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of `bench WORDS`."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err
