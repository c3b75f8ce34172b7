"""`bench ls`: every registered name."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer

from benchmark.errors import unknown

KINDS = ("models", "tasks", "datasets", "suites")


def ls(
    what: Annotated[str | None, typer.Argument(help="models, tasks, datasets or suites")] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable: one JSON object per line")] = False,
) -> None:
    """List what is registered. Example: bench ls models"""
    from benchmark import registry

    if what is None:
        typer.echo(columns(["list", "names"], [[f"bench ls {k}", len(getattr(registry, k)())] for k in KINDS]))
        return
    if what not in KINDS:
        raise unknown("list", what, KINDS, ", ".join(f"bench ls {k}" for k in KINDS))
    rows = {k: {f: v for f, v in row.items() if f != "entry_point"} for k, row in getattr(registry, what)().items()}
    if json:
        for name, row in rows.items():
            typer.echo(jsonlib.dumps({"name": name, **row}, ensure_ascii=False))
        return
    headers, lines = TABLES[what](rows)
    typer.echo(columns(headers, lines))


def columns(headers: list[str], lines: list[list[Any]]) -> str:
    """Left-aligned columns as plain text: a table library costs more time to import than the whole listing."""
    cells = [headers, *[["" if c is None else str(c) for c in line] for line in lines]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells)


def _models(rows: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    lines = []
    for name, r in rows.items():
        packaged = r.get("embedded") or r.get("family") == "floors"
        files = "official .npz files: --weights FOLDER" if r.get("npz") else r.get("target", "")
        files = f"files of no hub: bench show {name}" if r.get("files") else files
        where = r.get("hub") or r.get("backbone") or ("in the package" if packaged else files)
        text = "yes" if r.get("has_text") else "no"
        lines.append(
            [
                name,
                r.get("family"),
                r.get("image_size"),
                r.get("patch_size"),
                r.get("embed_dim"),
                text,
                r.get("licence"),
                where,
            ]
        )
    return ["model", "family", "px", "patch", "width", "text", "licence", "weights"], lines


def _tasks(rows: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    from benchmark.registry import datasets_of

    return ["task", "metric", "datasets"], [[n, r.get("metric"), ", ".join(datasets_of(n))] for n, r in rows.items()]


def _datasets(rows: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    from benchmark.registry import tasks_on

    return ["dataset", "licence", "tasks"], [[n, r.get("licence"), ", ".join(tasks_on(n))] for n, r in rows.items()]


def _suites(rows: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    return ["suite", "tasks", "protocol", "what"], [
        [n, len(r["units"]), r["protocol"], r["title"]] for n, r in rows.items()
    ]


TABLES = {"models": _models, "tasks": _tasks, "datasets": _datasets, "suites": _suites}
