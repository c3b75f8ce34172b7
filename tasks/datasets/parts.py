"""Which files of a set that came in numbered parts are not there, as far as their own names tell."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmark.contracts import DatasetInfo
from benchmark.data.tolerance import tolerance
from benchmark.errors import DataError

log = logging.getLogger("densebench.data")

OF = re.compile(r"(.*?)(\d+)(-of-)(\d+)(.*)")  # train-00003-of-00294, which older uploads follow with a hash
LAST = re.compile(r"(.*?)(\d+)()()()")
COUNT = "nshards.txt"  # clip-benchmark's count of the shards beside it


def absent_parts(files: Sequence[Path]) -> list[str]:
    """Names of the parts that `files` lack: by `-i-of-N`, by `nshards.txt` beside them, else gaps in their numbers.

    Raises DataError for parts of two versions in one folder.
    """
    groups: dict[tuple[Path, str, str, str], dict[int, tuple[int, int]]] = defaultdict(dict)
    for file in files:
        if match := OF.fullmatch(file.stem) or LAST.fullmatch(file.stem):
            head, number, word, of, _ = match.groups()
            groups[file.parent, head, word, file.suffix][int(number)] = len(number), int(of or 0)
    absent = []
    for (folder, head, _, suffix), found in groups.items():
        totals = {of for _, of in found.values()}
        if len(totals) > 1:
            both = " and ".join(f"{head}…-of-{of:05d}" for of in sorted(totals))
            raise DataError(f"{folder}: has parts of two versions, {both}. Delete one of them")
        width, of = next(iter(found.values()))
        if of:
            numbers, end = range(of), f"-of-{of:0{width}d}{suffix}"
        else:
            count = _counted(folder)
            numbers, end = range(count) if count else range(min(found), max(found)), suffix
        absent += [f"{head}{i:0{width}d}{end}" for i in numbers if i not in found]
    return absent


def _counted(folder: Path) -> int:
    try:
        return int((folder / COUNT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0


def check_parts(info: DatasetInfo, split: str, files: Sequence[Path]) -> None:
    """Raises DataError naming the first part that is not there, unless any part of the data is enough (`--limit`)."""
    if not (absent := absent_parts(files)):
        return
    text = f"{info.name} {split}: {len(files)} of {len(files) + len(absent)} files are there; first missing: "
    text += f"{files[0].parent / absent[0]}"
    if not tolerance().part:
        raise DataError(f"{text}. Get the rest: bench data prepare {info.name}; a part: --limit N")
    log.warning("%s. More: bench data verify %s", text, info.name)
    tolerance().short.append(text)
