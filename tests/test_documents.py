"""Every `bench …` line of the documents is a command; those in blocks are read whole, as the command line reads them.

None is run here: they name weights of the hub, data sets with owners and clusters, which no test has. Those that need
none of it are run by tests/test_tutorials.py, which holds the output that the page shows; the worked pages of
docs/contributing by tests/test_contributing.py, and bench run by tests/test_first_run.py."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from benchmark import registry
from benchmark.cli.commands import COMMANDS, app
from benchmark.errors import UsageError
from tasks.datasets.user_fields import read_task_file

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]


def command_lines(path: Path) -> list[str]:
    """`bench …` lines of blocks, and those in `inline code`."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    return [*block_lines(path), *re.findall(r"`(bench [a-z][^`]*)`", text)]


def block_lines(path: Path) -> list[str]:
    """`bench …` lines inside fences and indented blocks, without their comments."""
    text = re.sub(r"(?<=^```console\n).*?(?=^```$)", _typed, path.read_text(encoding="utf-8"), flags=re.S | re.M)
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.S | re.M) + re.findall(r"^(?: {4}.*\n)+", text, re.M)
    lines = [line.strip().removeprefix("$ ") for b in blocks for line in b.replace("\\\n", " ").splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines if re.match(r"bench [a-z]", line)]


def _typed(block: re.Match[str]) -> str:
    """What is typed of a console block; the rest is what was printed."""
    return "".join(f"{line}\n" for line in block[0].splitlines() if line.startswith("$ "))


def unread(line: str) -> str | None:
    """What the command line says against a whole command, names of models, tasks and suites included, if anything."""
    words = shlex.split(re.split(r"&&|\||;", line)[0])[1:]
    if "…" in words:  # what stands there is the reader's
        return None
    group: Any = typer.main.get_command(app)
    context = click.Context(group, info_name="bench")
    try:
        with group.get_command(context, words[0]).make_context(words[0], words[1:], parent=context):
            pass
    except typer.Exit:  # of --help
        return None
    except Exception as error:  # of the parser that typer carries
        return f"{type(error).__name__}: {error}"
    for option, value in pairwise(words):
        try:
            if option == "--model" and words[0] != "captions" and not value.isupper():
                registry.check_model_name(value)
            if (
                option == "--task"
                and not value.isupper()
                and not value.endswith((".toml", ".py"))
                and "/my-" not in value
            ):
                registry.units(value)
            if option == "--suite" and not value.isupper() and not value.endswith(".toml"):
                assert value in registry.suites(), f"no suite {value}"
        except (UsageError, AssertionError) as error:
            return str(error)
    return None


def problem(line: str) -> str | None:
    """What is wrong with a command line, if anything."""
    words = shlex.split(re.split(r"&&|\||;", line)[0].replace("…", "x"))[1:]
    group: Any = typer.main.get_command(app)
    context = click.Context(group)
    command = group.get_command(context, words[0])
    if command is None:
        return f"no command {words[0]}"
    rest = words[1:]
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        if not rest:
            return None
        command = command.get_command(click.Context(command), rest.pop(0))
        if command is None:
            return "no such subcommand"
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h", "--debug"}
    for word in rest:
        if word.startswith("-") and len(word) > 1 and word.partition("=")[0] not in known:
            return f"{words[0]} has no {word}"
    return None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_documented_commands_exist(path):
    wrong = {line: why for line in command_lines(path) if (why := problem(line))}
    if path.parent.name != "contributing":  # their names are those of the change that they make
        wrong |= {line: why for line in block_lines(path) if (why := unread(line))}
    assert not wrong


@pytest.mark.parametrize(
    "path", sorted({*ROOT.glob("docs/tasks/*.md")} - {ROOT / "docs/tasks/index.md"}), ids=lambda p: p.stem
)
def test_a_page_of_a_task_says_what_its_number_means(path: Path) -> None:
    """What it measures, what is had without seeing, what can be had, a picture of it, and how presets differ."""
    text = path.read_text(encoding="utf-8")
    assert "**Metric.**" in text and "**Chance.**" in text
    assert "**Ceiling.**" in text or "whose ceiling it has" in text
    assert "<!-- picture:" in text or "bench look --task" in text
    assert "**How papers differ.**" in text or sum(f"`{p}`" in text for p in ("fast", "paper", "dinov3", "capi")) > 1


TASK_FILES = [
    (path, block)
    for path in DOCUMENTS
    for block in re.findall(r"^```toml\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)
    if re.match(r"task\s*=", block)
]


@pytest.mark.parametrize(("path", "block"), TASK_FILES, ids=lambda v: v.stem if isinstance(v, Path) else "")
def test_a_task_file_of_a_page_is_one(path: Path, block: str, tmp_path: Path) -> None:
    (tmp_path / "my_task.toml").write_text(block, encoding="utf-8")
    assert read_task_file(tmp_path / "my_task.toml").values["name"]


def test_wrong_lines_would_be_noticed():
    assert problem("bench runn --model x") == "no command runn"
    assert problem("bench run --modle x") == "run has no --modle"
    assert problem("bench cache ls") is None and problem("bench cache eat") == "no such subcommand"
    assert unread("bench run --model tipsv2-b --task ade20k --limit 5 | head -1") is None
    for line, said in {
        "bench run --limit many": "integer", "bench watch --model tipsv2-b": "folder", "bench run ade20k": "argument",
        "bench run --model tipsv3": "unknown model", "bench run --task ade200k": "unknown",
        "bench run --suite x": "no suite",
    }.items():  # fmt: skip
        assert said in (unread(line) or "").lower(), line


def test_the_readme_names_every_command_and_sets_up_in_two_lines():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {line.split()[1] for path in DOCUMENTS for line in command_lines(path)}
    assert set(COMMANDS) <= named
    assert len(re.findall(r"^python3 -m venv", text, re.M)) == 2


def test_the_wheel_holds_every_shipped_row_file():
    """setup.py names patterns: a new kind of file beside a row must be among them."""
    patterns = re.findall(r"published\.csv|reference/\*\*/\*\.", (ROOT / "setup.py").read_text(encoding="utf-8"))
    endings = re.search(r"for ending in \((.*?)\)", (ROOT / "setup.py").read_text(encoding="utf-8")).group(1)
    patterns = [patterns[0], *(patterns[1] + ending.strip().strip('"') for ending in endings.split(","))]
    shipped = {path for path in (ROOT / "results" / "reference").rglob("*") if path.is_file()}
    taken = {path for pattern in patterns for path in (ROOT / "results").glob(pattern)}
    extra = {path for path in shipped - taken if path.name not in ("results.csv", "results.md", "noise.json")}
    assert shipped and not extra
