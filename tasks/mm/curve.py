"""The training curve as files beside the row."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from tasks.mm.checkpoint import Curve


def curve_files(curve: Curve) -> dict[str, bytes]:
    """`curve.csv`, and `curve.png` with loss (left) and learning rate (right) over steps."""
    figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    steps = [row[0] for row in curve.rows]
    left.plot(steps, [row[2] for row in curve.rows], color="tab:blue")
    right.plot(steps, [row[1] for row in curve.rows], color="tab:grey", linewidth=0.8)
    left.set(xlabel="step", ylabel="loss")
    right.set(ylabel="learning rate")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return {"curve.csv": curve.text.encode(), "curve.png": picture.getvalue()}
