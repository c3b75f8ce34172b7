"""What `bench dedup` leaves behind: a line for each picture, the list that training reads, a page for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmark.contracts import ImageSet
from benchmark.dedup.near import CUT, LEAST, QUALITY, Found
from benchmark.system import sealed
from benchmark.system.files import write_text
from benchmark.system.plurals import number_of

SHOWN = 20  # near-copies on the page, and as many that were just kept


def write_report(
    folder: Path, found: Found, training: ImageSet, ids: str, model: str, compared: Mapping[str, Sequence[int]]
) -> list[Path]:
    """`pictures.csv` (all of them with score and nearest), `left-out.json` (`data.leave_out` of a recipe) and
    `report.md`, in `folder`. `ids`: digest of the training samples' ids; `compared`: of each unit how many pictures
    were compared, and how many there are."""
    left = {int(row) for row in found.left_out}
    held = io.StringIO()
    table = csv.writer(held)
    table.writerow(["index", "picture", "kept", "score", "nearest"])
    for row in range(len(training)):
        kept = "no" if row in left else "yes"
        table.writerow([row, training.image_id(row), kept, f"{found.score[row]:.4f}", found.of[row]])
    places = [folder / name for name in ("pictures.csv", "left-out.json", "report.md")]
    write_text(places[0], held.getvalue())
    facts = {"schema": 2, "samples": len(training), "ids": ids, "threshold": found.threshold, "indices": sorted(left)}
    sealed.write_json(places[1], {**facts, "model": model, "compared": {k: list(v) for k, v in compared.items()}})
    write_text(places[2], _page(found, training, model, compared))
    return places


def parts(compared: Mapping[str, Sequence[int]]) -> str:
    """What was compared with a part of its pictures alone; "" where nothing was."""
    return ", ".join(f"{n} of {there} pictures of {unit}" for unit, (n, there) in compared.items() if n < there)


def _page(found: Found, training: ImageSet, model: str, compared: Mapping[str, Sequence[int]]) -> str:
    left, falling = len(found.left_out), np.argsort(-found.score, kind="stable")
    part = parts(compared)
    against = ", ".join(f"{unit} ({number_of(n, 'picture')})" for unit, (n, _) in compared.items())
    caught = 100 * float((found.spoilt >= found.threshold).mean())
    lines = [
        "# Training pictures that are near-copies of evaluation pictures",
        "",
        f"{left} of {len(training)} are left out: cosine of at least {found.threshold:.4f} by {model}, against"
        f" {against}.",
        "",
        *([f"**A part alone was compared**: {part}. Copies of the others are still there.", ""] if part else []),
        f"- Evaluation pictures spoilt as copies are (half the size, {100 * CUT:.0f} % of each side cut off, JPEG"
        f" {QUALITY}) have {_spread(found.spoilt)} with their originals; {caught:.0f} % of them would be left out."
        f" Without --threshold it is such that at least {100 * (1 - LEAST):.0f} % are.",
    ]
    if len(found.others):
        wrong = 100 * float((found.others >= found.threshold).mean())
        lines.append(
            f"- Evaluation pictures have {_spread(found.others)} with the nearest other evaluation picture; {wrong:.0f}"
            " % of them would be taken for copies of one another. Where that is many, the encoder does not tell copies"
            " from pictures that are alike."
        )
    shown = {"Left out, nearest first": falling[:left][:SHOWN], "Kept, nearest first": falling[left:][:SHOWN]}
    for title, rows in shown.items():
        lines += ["", f"## {title}", "", "| score | training picture | nearest |", "|---|---|---|"]
        lines += [f"| {found.score[row]:.4f} | {training.image_id(int(row))} | {found.of[row]} |" for row in rows]
    return "\n".join(lines) + "\n"


def _spread(cosines: np.ndarray) -> str:
    low, middle, high = np.quantile(cosines, (0.05, 0.5, 0.95))
    return f"cosines of {middle:.3f} (5 to 95 %: {low:.3f} to {high:.3f})"
