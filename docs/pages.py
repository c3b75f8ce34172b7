"""A hook of MkDocs: writes the pages under reference/ from the tables that the product itself reads.

`python docs/pages.py` writes docs/models.md, which is read in the repository, too.
"""

from __future__ import annotations

import json as jsonlib
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from benchmark import registry
from benchmark.cli.commands import COMMANDS, app
from benchmark.cli.weights import steps
from benchmark.protocol import load_protocol, presets, variants
from benchmark.rows.row import read_all
from benchmark.rows.schema import Metric
from benchmark.rows.tables import number
from benchmark.system.paths import reference_dir

DOCS = Path(__file__).parent
WHAT = ("own", "other", "odd", "texts")  # what an entry of references.toml names a test for
STATUS = {"confirmed": "confirmed", "inferred": "*inferred*", "unknown": "**unknown**"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    for name, page in (("protocols", protocols), ("datasets", datasets), ("commands", commands)):
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
    """A value with its unit and 95 % interval; a line breaks between the two."""
    value, low, high = (number(v, metric.unit) for v in (metric.value, *metric.ci95))
    return f"{value}\N{NO-BREAK SPACE}{metric.unit} [{low},\N{NO-BREAK SPACE}{high}]"


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
    """docs/models.md: every model by name, what it is held to, and how its weights are had."""
    yield "# Models\n"
    yield (
        "<!-- Written by `python docs/pages.py` from adapters/models.toml, docs/references.toml and "
        "docs/deviations.json. Change those. -->\n"
    )
    yield (
        "`bench run --model NAME`; beside these `hf:REPO`, `timm:NAME`, `open_clip:ARCH/TAG`, `file.py:function`. "
        "`bench show NAME` prints all that is known of one, and the commands that fetch it.\n"
    )
    yield (
        "Sizes are those of the architecture, built without a number in it and compared by a test. *Deviation* is the "
        "largest that the tests named below measured between the encoder and its reference, on random weights, as a "
        "part of the reference's largest value (`python tests/deviations.py` measures all again). *Patches in text "
        "space* is their width. A revision is a commit where one was verified; *tip* means that whatever the branch "
        "holds is fetched: the row then keeps the digest of the weights.\n"
    )
    deviations = jsonlib.loads((DOCS / "deviations.json").read_text(encoding="utf-8"))
    head = ["model", "px", "patch", "width", "parameters", "text", "patches in text space", "held to", "deviation"]
    head += ["licence", "weights"]
    rows = []
    for name, r in registry.models().items():
        reference = reference_of(name, r)
        gap = max((deviations[reference[what]] for what in WHAT if what in reference), default=None)
        params = f"{r['params'] / 1e6:,.1f} M" if r.get("params") else ""
        rows.append(
            [
                name, *(r.get(k, "") for k in ("image_size", "patch_size", "embed_dim")), params,
                r.get("text_dim") or "", r.get("text_dim", "") if r.get("has_text_patches") else "",
                reference.get("to", ""), "" if gap is None else f"{gap:.0e}", r.get("licence", ""), where(name, r),
            ]
        )  # fmt: skip
    yield table(head, rows)
    yield "\n## What they are held to\n"
    used = [reference_of(name, r) for name, r in registry.models().items()]
    entries = {one["own"]: one for one in used if one}
    yield (
        "The largest deviation for pictures of the own size, of another, odd ones (no whole number of patches), and "
        "texts. The test is that of the own size; docs/references.toml names the others.\n"
    )
    yield table(
        ["test", "reference", "own size", "another size", "odd pictures", "texts"],
        [
            [f"`{one['own']}`", one["to"], *(f"{deviations[one[w]]:.1e}" if w in one else "" for w in WHAT)]
            for one in entries.values()
        ],
    )
    yield "\n## Gated, and on no hub\n"
    for name, r in registry.models().items():
        if r.get("gated") or "files" in r:
            yield f"**{name}**\n\n{textwrap.indent(chr(10).join(steps(name, r)), '    ')}\n"
    yield (DOCS / "models_left_out.md").read_text(encoding="utf-8").rstrip()


def reference_of(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The first entry of docs/references.toml that fits a row; empty for floors."""
    entries = tomllib.loads((DOCS / "references.toml").read_text(encoding="utf-8"))["reference"]
    words = f"{name} {row.get('library', '')}"
    fitting = (e for e in entries if e["target"] == row["target"] and e.get("named", "") in words)
    return next(fitting, {})


def where(name: str, row: Mapping[str, Any]) -> str:
    """Where a model's weights are, and by which revision."""
    if row.get("embedded") or row.get("family") == "floors":
        return "in the package"
    if row.get("hub"):
        revision = f"at `{row['revision'][:8]}`" if "revision" in row else "tip"
        return f"`{row['hub']}` {revision}" + (", gated" if row.get("gated") else "")
    return "official `.npz` files" if row.get("npz") else f"no hub: `bench show {name}`"


def commands() -> Iterator[str]:
    """Every command with its options, as `--help` has them."""
    yield "# Command line\n"
    yield "Exit codes: 0 done; 1 some task failed; 2 wrong usage; 3 regression; 130 interrupted; 143 stopped.\n"
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


if __name__ == "__main__":
    (DOCS / "models.md").write_text("\n".join(models()) + "\n", encoding="utf-8")
