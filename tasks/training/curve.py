"""The loss over the steps, as CSV and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from tasks.training.fields import TrainedHead
from tasks.training.schedule import learning_rate

ROWS = 2000  # longer curves are means over equal stretches of steps


def curve_files(losses: Sequence[float], p: TrainedHead) -> dict[str, bytes]:
    """curve.csv (step, loss, learning_rate) and curve.png. A row's loss is the mean since the row before."""
    stride = -(-len(losses) // ROWS)
    ends = [min(start + stride, len(losses)) for start in range(0, len(losses), stride)]
    means = [float(np.mean(losses[max(0, end - stride) : end])) for end in ends]
    rows = [f"{end},{mean:.7g},{learning_rate(p, end - 1):.7g}" for end, mean in zip(ends, means)]
    table = "\n".join(["step,loss,learning_rate", *rows]) + "\n"
    return {"curve.csv": table.encode(), "curve.png": _picture(ends, means)}


def _picture(steps: Sequence[int], losses: Sequence[float]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="training loss")
    axes.plot(steps, losses, lw=0.6, alpha=0.4, color="tab:blue")
    width = max(1, len(losses) // 50)
    smooth = np.convolve(losses, np.ones(width) / width, "valid")
    axes.plot(steps[width - 1 :], smooth, lw=1.5, color="tab:blue")
    axes.grid(alpha=0.3)
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
