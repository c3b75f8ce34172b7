"""`--max-bad N`: find unreadable pictures and labels beforehand, and leave them out of the set in plain sight."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmark.contracts import Samples
from benchmark.contracts.progress import NewProgress
from benchmark.errors import BenchError, DataError, reading


def drop_unreadable(data: Samples, allowed: int, progress: NewProgress, missing: int = 0) -> tuple[Samples, list[str]]:
    """`data` without the samples that cannot be read, and one line for each of those.

    Raises DataError when these and the `missing` ones that were left out before are more than `allowed`. The set's
    digest changes with what is left out, so such a row is never paired with a whole one.
    """
    for images in data.pictures().values():
        images.prepare(progress)
    jobs = list(data.readings())
    bar = progress("checking files", len(jobs))

    def attempt(job: tuple[str, Callable[[int], Any], int]) -> tuple[str, str] | None:
        name, read, index = job
        bar.advance()
        try:
            with reading(name, "cannot be read", "Replace the file"):
                read(index)
        except BenchError as e:
            return name, str(e)
        return None

    with ThreadPoolExecutor(4) as pool:
        found = dict(f for f in pool.map(attempt, jobs) if f)
    if found and missing + len(found) > allowed:
        count = f"{missing} missing and {len(found)}" if missing else f"{len(found)}"
        first = next(iter(found.values()))
        raise DataError(f"{count} unreadable files, --max-bad allows {allowed}. The first unreadable: {first}")
    return (data.without(set(found)) if found else data), list(found.values())
