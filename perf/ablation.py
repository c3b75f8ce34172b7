"""Every row and seed of the recipe's ablation, trained and scored: docs/recipe.md holds the table.

    python perf/ablation.py runs/ablation [--set train.dtype=bfloat16] [--dry-run]

The same command resumes: a finished (row, seed) is read, not trained again.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from adapters.tipsv2.recipe.ablation import ROWS, SCHEMA, differences, folder_of, plan, scored, summary
from adapters.tipsv2.recipe.config_file import parse_override
from adapters.tipsv2.recipe.evaluation import evaluate
from adapters.tipsv2.recipe.trainer import train
from benchmark import run
from benchmark.system import sealed
from tasks.scenes.render import render


def main(
    out: Annotated[Path, typer.Argument(help="Folder of all runs.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE over the base config.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print rows, seeds and steps; train nothing.")] = False,
) -> None:
    """Train and score every row and seed, then write summary.md."""
    table = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    measured: dict[str, list[dict[str, float]]] = {}
    for row, seed, config in plan(dict(parse_override(text) for text in set_ or []), out):
        typer.echo(f"{row}, seed {seed}: {config.train.steps} steps")
        if dry_run:
            continue
        folder = folder_of(out, row, seed)
        scores = folder / "scores.json"
        found = scored(scores)
        if found is None:
            final = train(config, folder, render=render)
            found = evaluate(run, final, folder, table["units"], overrides=table["readout"])
            sealed.write_json(scores, {"schema": SCHEMA, **found})
        measured.setdefault(row, []).append(found["evaluation"])
        lines = [*summary(measured), "", *differences(measured, table["compare"])]
        (out / "summary.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
