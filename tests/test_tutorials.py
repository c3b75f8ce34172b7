"""The tutorials' commands, run on what examples/first_hour/make.py writes, print what the pages show."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def runner() -> Any:
    spec = importlib.util.spec_from_file_location("outputs", ROOT / "docs" / "outputs.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def words(page: str) -> str:
    """A page without its numbers, digests and rules: the last digit may be another machine's."""
    text = re.sub(r"\b[0-9a-f]{6,}\b", "#", page)
    return re.sub(r"\s+", " ", re.sub(r"[−+-]?\d[\d.,]*|-{2,}", "#", text))


def test_they_print_what_the_pages_show(tmp_path: Path) -> None:
    outputs, shown = runner(), 0
    with outputs.an_hour(tmp_path):
        for path in outputs.PAGES:
            page = path.read_text(encoding="utf-8")
            assert words(outputs.filled(page)) == words(page), f"{path.name}: python docs/outputs.py writes it anew"
            shown += sum(len(outputs.commands(block)) for block in outputs.CONSOLE.findall(page))
    assert shown > 12 and (tmp_path / "hour" / "look.png").read_bytes().startswith(b"\x89PNG")


def test_an_exit_code_that_a_page_does_not_ask_for_stops() -> None:
    outputs = runner()
    page = "```console\n$ bench show nothing; echo $?\n$ bench ls suites | head -1\nold\n```\n"
    assert outputs.filled(page).splitlines()[2] == "2" and "old" not in outputs.filled(page)
    for line, why in {"bench show nothing": "exit code 2", "rm x": "only bench is run here"}.items():
        try:
            outputs.filled(f"```console\n$ {line}\n```\n")
        except ValueError as error:
            assert why in str(error)
        else:
            raise AssertionError(line)
