"""Runs what the tutorials show and writes what it printed into them: python docs/outputs.py

A block ```console holds commands behind `$ `, below each what it prints; a block ```python with a block ```text behind
it is a script and its output. They run one after the other, page by page, in a folder of what
examples/first_hour/make.py makes. `| head -N`, `| tail -N` and `; echo $?` (the exit code) are understood. Commands in
plain blocks need weights or data that are not here: tests/test_documents.py has the command line read them, no more.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

from benchmark.cli import main as bench

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / f"docs/tutorials/{name}.md" for name in ("checkpoint", "choose", "ci", "paper_table", "encoder", "dataset")
]
CONSOLE = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.S | re.M)
SCRIPT = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.S | re.M)
BLOCK = re.compile(f"{SCRIPT.pattern}|{CONSOLE.pattern}", re.S | re.M)
PIPE = re.compile(r"(?P<words>.*?)(?: \| (?P<end>head|tail) -(?P<count>\d+))?(?P<code>; echo \$\?)?")


def filled(page: str) -> str:
    """`page` with what its commands print now; they are run in the current folder."""
    return BLOCK.sub(_block, page)


def _block(found: re.Match[str]) -> str:
    if script := found[1]:
        said = _said(lambda: exec(compile(script, "tutorial", "exec"), {"__name__": "tutorial"}))[0]
        return f"```python\n{script}```\n\n```text\n{said}```"
    return "".join(f"$ {line}\n{_printed(line)}" for line in commands(found[0]))


def commands(block: str) -> list[str]:
    """The commands of a console block."""
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def _printed(line: str) -> str:
    parts = PIPE.fullmatch(line)
    words = shlex.split(parts["words"])
    if words[0] != "bench":
        raise ValueError(f"only bench is run here: {line}")
    with patch.object(sys, "argv", words):
        said, code = _said(lambda: bench(words[1:]))
    lines = [text.rstrip() for text in said.splitlines()]
    if parts["end"]:
        lines = lines[: int(parts["count"])] if parts["end"] == "head" else lines[-int(parts["count"]) :]
    if parts["code"]:
        lines.append(str(code))
    elif code:
        raise ValueError(f"{line}: exit code {code}")
    return "".join(f"{text}\n" for text in lines)


def _said(action: Callable[[], object]) -> tuple[str, int]:
    """What `action` prints to standard output, and its exit code."""
    out, code = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True), 0
    with contextlib.redirect_stdout(out):
        try:
            action()
        except SystemExit as end:
            code = int(end.code or 0)
    out.flush()
    return out.buffer.getvalue().decode("utf-8"), code


@contextlib.contextmanager
def an_hour(place: Path) -> Iterator[Path]:
    """The folder `hour` in `place` with all that the tutorials name, as current folder."""
    make, before = runpy.run_path(str(ROOT / "examples" / "first_hour" / "make.py"))["main"], Path.cwd()
    make(place / "hour")
    os.chdir(place / "hour")
    try:
        yield place / "hour"
    finally:
        os.chdir(before)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, an_hour(Path(folder)):
        for path in PAGES:
            path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
            print(path)
