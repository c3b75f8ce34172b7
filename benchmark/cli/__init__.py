"""The command line: words in, words and tables out. A command's file is imported only when it is used."""

from __future__ import annotations

import time

from benchmark.system import signals

STARTED = time.perf_counter()  # of the command, for the account of its seconds


def main(argv: list[str] | None = None) -> None:
    """Entry point of `bench`. Exit codes: as `bench --help` says them."""
    with signals.at_once():
        from benchmark.cli.commands import main as command
    command(argv)
