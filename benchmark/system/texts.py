"""Text that people and other programs wrote: UTF-8, with or without a byte-order mark; nothing else is guessed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.errors import DataError


def text_of(path: Path) -> str:
    """The text of a UTF-8 file; the mark that Windows' editors put first is no letter of its first word.

    Raises DataError naming the file, and the line of the first byte that is not UTF-8.
    """
    try:
        return decoded(path.read_bytes(), str(path))
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror})") from None


def decoded(data: bytes, where: str) -> str:
    """`data` as text, as `text_of` reads it; `where` is for people."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data[: e.start].count(b"\n") + 1
        raise DataError(f"{where}:{line}: byte 0x{data[e.start]:02x} is not UTF-8. Save the file as UTF-8") from None


def split_lines(text: str) -> Iterator[str]:
    """The lines of `text`, as they are: only \\n, \\r and \\r\\n end one, as in editors and in JSON lines.

    Unicode's other separators (U+2028, U+0085, \\v, \\f …), at which `str.splitlines` cuts, stand inside captions.
    """
    return (line.removesuffix("\n") for line in io.StringIO(text, newline=None))


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that hold more than spaces, as they are. Raises DataError as `text_of`."""
    return [line for line in split_lines(text_of(path)) if line.strip()]


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file of JSON lines; empty lines are passed over.

    Raises DataError "file:line: what is wrong", also for half a character (a lone \\ud83d), which no tokenizer takes.
    """
    for number, line in enumerate(split_lines(text_of(path)), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except json.JSONDecodeError as e:
            raise DataError(f"{path}:{number}: is not JSON ({e.msg})") from None
        except RecursionError:
            raise DataError(f"{path}:{number}: is not JSON that can be read (nested too deeply)") from None
        except UnicodeEncodeError as e:
            half = e.object[e.start].encode("ascii", "backslashreplace").decode("ascii")
            raise DataError(f"{path}:{number}: holds half a character ({half}). Write the text anew") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: is no JSON object")
        yield number, row
