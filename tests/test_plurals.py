"""One of a thing is said in the singular, in every line that people read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from benchmark.system.plurals import number_of

ROOT = Path(__file__).parents[1]
NOUNS = (
    "rows|files|pictures|samples|models|tasks|heads|layers|boards|captions|domains|categories|variants|workers"
    "|checkpoints"
)
PLURAL = re.compile(rf" ({NOUNS})(?![\w/])")


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [(1, "row", "1 row"), (0, "row", "0 rows"), (4000, "task and dataset pair", "4,000 task and dataset pairs"),
     (2, "class", "2 classes"), (1, "category", "1 category"), (2, "category", "2 categories"), (2, "day", "2 days"),
     (3, "patch", "3 patches"), (2, "index", "2 indexes")],
)  # fmt: skip
def test_a_number_with_its_noun(count: int, noun: str, said: str) -> None:
    assert number_of(count, noun) == said


def said(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else ""


def always_many(source: str) -> Iterator[str]:
    """`{…} rows` of every f-string; "3 of {n} rows" is right for any n, and a word that "means {n} tasks" means two."""
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for i, (value, after) in enumerate(pairwise(parts)):
            before = said(parts[i - 1]) if i else ""
            if isinstance(value, ast.FormattedValue):
                many = PLURAL.match(said(after)) and not re.search(r"\b(of( its| the)?|means) $", before)
                if many:
                    yield f"line {value.lineno}: {{{ast.unparse(value.value)}}}{said(after)[:30]}"


def test_no_line_says_1_rows() -> None:
    assert list(always_many("f'{n} rows'")) and not list(always_many("f'{a} of {b} rows'"))
    files = [path for package in ("adapters", "benchmark", "tasks") for path in (ROOT / package).rglob("*.py")]
    found = [f"{path.relative_to(ROOT)} {line}" for path in files for line in always_many(path.read_text("utf-8"))]
    scripts = (ROOT / "benchmark" / "leaderboard" / "assets").glob("*.js")
    in_page = re.compile(rf"(?<!of )\$\{{(?![A-Z_]+\}})[^}}]*\}} ({NOUNS})\b")  # a constant's number is known
    found += [f"{path.name}: {m[0]}" for path in scripts for m in in_page.finditer(path.read_text("utf-8"))]
    assert not found, "\n".join(found)
