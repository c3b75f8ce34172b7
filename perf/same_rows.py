"""Does today's code give the rows that are there? All of a folder are made again and compared to the last digit.

    python perf/same_rows.py results/reference     # the shipped rows: four embedded encoders and two floors
    python perf/same_rows.py FOLDER                # rows of `scenes` that another checkout has made

Left out are times, memory, machine and command, and the digest of the file that holds them. With the cache of the
checkout that made them no picture is encoded again: the last line says how many were.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark import run
from benchmark.rows.row import Row, read_all

OF_A_RUN = ("created", "command", "timing", "environment", "peak_memory_mb", "peak_memory_method", "peak_gpu_memory_mb",
            "sha256", "kept_predictions")  # fmt: skip
Key = tuple[str, str, str]


def key_of(row: Row) -> Key:
    """What a row is of."""
    return row.model, row.unit, row.folder.name


def content(row: Row) -> dict[str, Any]:
    """What must be the same."""
    return {name: value for name, value in row.data.json().items() if name not in OF_A_RUN}


def main() -> int:
    """1 where a row differs or cannot be made again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    before = {key_of(row): row for row in read_all(parser.parse_args().folder)[0]}
    models = sorted({model for model, _, _ in before})
    with tempfile.TemporaryDirectory() as place:
        report = run(models, suite="scenes", results=Path(place), save_predictions=0)
        again = {key_of(row): content(row) for row in report.rows}
    wrong = 0
    for key, row in before.items():
        made, was = again.get(key), content(row)
        fields = ["everything"] if made is None else [f for f in {*made, *was} if made.get(f) != was.get(f)]
        if fields:
            wrong += 1
            print(*key, "differs in", ", ".join(sorted(fields)))
    print(f"{len(before)} rows of {len(models)} models, {wrong} differ; pictures encoded again:", report.forwards)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
