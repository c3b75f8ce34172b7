"""A hook of MkDocs: writes the pages under reference/ from the tables that the product itself reads."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from benchmark import registry
from benchmark.cli import COMMANDS, app
from benchmark.protocol import load_protocol, presets, variants
from benchmark.rows.row import read_all
from benchmark.rows.schema import Metric
from benchmark.rows.tables import number
from benchmark.system.paths import reference_dir

STATUS = {"confirmed": "confirmed", "inferred": "*inferred*", "unknown": "**unknown**"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for name, page in (("protocols", protocols), ("datasets", datasets), ("models", models), ("commands", commands)):
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(page()) + "\n"))
    for task in registry.tasks():
        if found := shipped_picture(task):
            files.append(File.generated(config, f"pictures/{task}.png", abs_src_path=str(found)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in shipped rows and pictures; links into the code, which is no part of the site, become the file's name."""
    markdown = re.sub(
        r"<!-- rows:? ?([a-z_ ]*)-->", lambda m: shipped(m[1].split() or list(registry.tasks())), markdown
    )
    markdown = re.sub(r"<!-- picture: ([a-z_]+) -->", r"![a prediction](../pictures/\1.png)", markdown)
    folders = "adapters|benchmark|examples|perf|results|tasks|tests"
    return re.sub(rf"\[[^\]]*\]\((?:\.\./)+((?:{folders})/[^)]*)\)", r"`\1`", markdown)


def shipped(tasks: Sequence[str]) -> str:
    """The shipped rows of `tasks`, a column for each model."""
    rows = {(row.unit.partition("/")[0], row.model): row for row in read_all(reference_dir())[0]}
    names = [name for name in registry.models() if any(model == name for _, model in rows)]
    lines = []
    for task in (task for task in tasks if any(name == task for name, _ in rows)):
        any_row = next(row for (name, _), row in rows.items() if name == task)
        head = f"{task}, {any_row.data.main_metric}"
        lines.append([head, *(interval(rows[task, name].main) if (task, name) in rows else "n/a" for name in names)])
    return table(["on `scenes`", *names], lines)


def interval(metric: Metric) -> str:
    """A value with its unit and 95 % interval."""
    value, low, high = (number(v, metric.unit) for v in (metric.value, *metric.ci95))
    return f"{value} {metric.unit} [{low}, {high}]"


def shipped_picture(task: str) -> Path | None:
    """The picture of tipsv2-mini's median sample, or of a wrong answer."""
    found = sorted(reference_dir().glob(f"tipsv2-mini/{task}/scenes/*/pictures/*.png"))
    return next((f for f in found if f.name.startswith("median")), found[0] if found else None)


def protocols() -> Iterator[str]:
    """Every preset of every task: each field with its value, status and source."""
    yield "# Protocols\n"
    yield (
        "A preset is a table of fields. Each says how sure its value is: *confirmed* (its source says so), *inferred* "
        "(from what the source implies) or *unknown* (a choice of ours). The hash is over task, schema and values; it "
        "is in every row, and no table mixes two. `bench show TASK` prints the same, `--set field=value` changes one."
    )
    for task in registry.tasks():
        yield f"\n## {task}\n"
        path = registry.protocol_file(task)
        for preset in presets(path):
            for dataset in (None, *variants(path, preset)):
                found = load_protocol(task, registry.load_task(task).schemas, path, preset, None, dataset)
                yield f"\n### {preset} of {task}" + (f" on {dataset}" if dataset else "") + "\n"
                yield f"{found.description}. Hash `{found.hash[:8]}`.\n"
                rows = [[k, f"`{v['value']}`", STATUS[v["status"]], v["source"]] for k, v in found.fields().items()]
                yield table(["field", "value", "status", "source"], rows)


def datasets() -> Iterator[str]:
    """Every data set: what it serves, its licence, its layout and how to get it."""
    yield "# Data sets\n"
    yield "Read where they lie under `--data` (`./data`), in their owners' layouts, archives and shards included.\n"
    rows = registry.datasets()
    yield table(
        ["data set", "tasks", "licence"],
        [[f"[{n}](#{n})", ", ".join(registry.tasks_on(n)), r["licence"]] for n, r in rows.items()],
    )
    for name, row in rows.items():
        yield f"\n## {name}\n\n{row['title']}. {row['citation']}.\n"
        if row.get("url"):
            yield f"<{row['url']}>\n"
        if row.get("counts"):
            yield "Pictures: " + ", ".join(f"{split} {count:,}" for split, count in row["counts"].items()) + ".\n"
        yield "Layout:\n\n" + textwrap.indent(str(row["layout"]).strip(), "    ") + "\n"
        steps = row.get("steps")
        yield f"How to get it: {row['how_to_get']}.\n" + (
            f"\nBy hand:\n\n{textwrap.indent(text(steps), '    ')}\n" if steps else ""
        )


def models() -> Iterator[str]:
    """Every model by name."""
    yield "# Models\n"
    yield "`bench run --model NAME`; beside these `hf:REPO`, `timm:NAME`, `open_clip:ARCH/TAG`, `file.py:function`.\n"
    head = ["model", "family", "px", "patch", "width", "parameters", "text", "licence", "weights"]
    rows = []
    for name, r in registry.models().items():
        where = f"`{r['hub']}` at `{str(r.get('revision', ''))[:8]}`" if r.get("hub") else "see `bench show`"
        where = "in the package" if r.get("embedded") or r.get("family") == "floors" else where
        params = f"{r['params'] / 1e6:,.1f} M" if r.get("params") else ""
        facts = [r.get(k, "") for k in ("family", "image_size", "patch_size", "embed_dim")]
        rows.append([name, *facts, params, "yes" if r.get("has_text") else "", r.get("licence", ""), where])
    yield table(head, rows)


def commands() -> Iterator[str]:
    """Every command with its options, as `--help` has them."""
    yield "# Command line\n"
    yield "Exit codes: 0 done; 1 some task failed; 2 wrong usage; 3 regression; 130 interrupted.\n"
    group: Any = typer.main.get_command(app)
    context = click.Context(group, info_name="bench")
    for name in COMMANDS:
        yield from _command(group.get_command(context, name), f"bench {name}")


def _command(command: Any, title: str) -> Iterator[str]:
    yield f"\n## {title}\n\n{text(command.help)}\n"
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _command(inner, f"{title} {name}")
        return
    rows = []
    for one in command.params:
        words = (
            "`" + ", ".join((*one.opts, *one.secondary_opts)) + "`"
            if one.opts[0].startswith("-")
            else str(one.name).upper()
        )
        rows.append([words, text(getattr(one, "help", "") or "")])
    yield table(["option", "what"], rows)


def text(value: Any) -> str:
    """A help text or a list of steps as plain lines."""
    lines = value if isinstance(value, Sequence) and not isinstance(value, str) else [value or ""]
    return "\n".join(str(line).strip() for line in lines)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; bars and line ends inside cells are escaped."""
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
