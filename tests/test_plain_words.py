"""No page and no message needs the words "unit", "tap" or "slot", which are ours: users run tasks on data sets."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from benchmark import registry
from benchmark.cli.commands import COMMANDS, app

ROOT = Path(__file__).parents[1]
OURS = re.compile(r"\b(units?|taps?|slots?)\b", re.I)
FIELDS = re.compile(r"\bunit (vectors?|length)\b")  # a term of geometry
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
SCRIPTS = [
    *ROOT.glob("examples/**/*.toml"),
    *ROOT.glob("examples/**/*.yml"),
    *ROOT.glob("examples/**/*.sh"),
    *ROOT.glob(".github/**/*.yml"),
]


def ours(text: str) -> list[str]:
    """The lines of `text` with one of the words."""
    return [line.strip() for line in FIELDS.sub("", text).splitlines() if OURS.search(line)]


def prose(markdown: str) -> str:
    """A page without its code, where names of Python and of columns stand."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", markdown, flags=re.S | re.M))


def messages(path: Path) -> Iterator[str]:
    """The sentences in a module's code: strings of several words that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    comments = {id(node.body[0].value) for node in ast.walk(tree)
                if isinstance(node, scopes) and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):  # whole: a word between two values stands in a piece of its own
            whole = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {whole if ' ' in whole.strip() else ''}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in comments:
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.value if ' ' in node.value.strip() else ''}"


def helps(command: Any, name: str) -> Iterator[str]:
    """The texts of --help, of a command and those below it."""
    yield f"{name}: {command.help}"
    for one in command.params:
        yield f"{name} {one.name}: {getattr(one, 'help', '')}"
    for inner, below in getattr(command, "commands", {}).items():
        yield from helps(below, f"{name} {inner}")


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_page_has_them(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not ours(prose(text) if path.suffix == ".md" else text)


@pytest.mark.parametrize("package", ["benchmark", "adapters", "tasks"])
def test_no_message_has_them(package: str) -> None:
    found = [
        said
        for path in sorted((ROOT / package).rglob("*.py"))
        for said in messages(path)
        if ours(said.partition(": ")[2])
    ]
    assert not found


def test_no_help_text_has_them() -> None:
    group: Any = typer.main.get_command(app)
    context = click.Context(group)
    assert not [said for name in COMMANDS for said in helps(group.get_command(context, name), name) if ours(said)]


def test_no_generated_page_has_them() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import pages
    finally:
        sys.path.remove(str(ROOT / "docs"))
    for page in (pages.protocols, pages.datasets, pages.models, pages.commands):
        assert not ours(prose("\n".join(page()))), page.__name__
    for rows in (registry.tasks(), registry.suites()):
        assert not ours(" ".join(str(row["title"]) for row in rows.values()))


@pytest.mark.parametrize("path", sorted((ROOT / "benchmark/leaderboard/assets").glob("*.js")), ids=lambda p: p.name)
def test_the_leaderboard_does_not_say_them(path: Path) -> None:
    said = re.findall(r"\"([^\"\n]* [^\"\n]*)\"", path.read_text(encoding="utf-8"))
    assert not [text for text in said if ours(re.sub(r"[\w.]+\(.*?\)|[\w.]*\.unit\w*", "", text)) and "}" not in text]


def test_the_words_would_be_noticed() -> None:
    assert ours("two units of work") and ours("Slots are full") and not ours("unit vectors; unity; tapes")
    assert not ours(prose("the `unit` of a metric\n```\nTap('cls')\n```\n"))
