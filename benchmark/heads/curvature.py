"""The curvature of multinomial logistic loss at given parameters, class by class: what tells L-BFGS how far to go.

The Hessian's block of class c is Xᵀ diag(p_c (1 - p_c)) X / n. Far from chance most of it comes from the rows where the
class is in doubt, so those are taken one by one and the rest at their mean. With the Hessian at chance for a
preconditioner a weak penalty takes hundreds of passes over the rows; with this one, tens (`perf/logistic.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmark.errors import EncoderError
from benchmark.heads.grid import MixedRows
from benchmark.heads.lbfgs import Preconditioner
from benchmark.heads.rows import Rows
from benchmark.system.late import torch
from benchmark.system.processes import give_back

SAMPLE = 32_768  # rows looked at
DOUBTFUL = 4_096  # rows of each class that count one by one; half of them cost half again as many passes
ROOM = 1 << 30  # bytes of blocks; above it the caller does without (150 classes of width 1,024 take 0.6 GB)


def fits(classes: int, width: int) -> bool:
    """Whether the blocks of that many classes [width + 1, width + 1] stay within ROOM."""
    return classes * (width + 1) ** 2 * 4 <= ROOM


def block_bytes(rows: int, width: int, classes: int) -> int:
    """Bytes that the blocks of a fit hold, with the rows looked at."""
    return 4 * (classes * (width + 1) ** 2 + 2 * min(rows, SAMPLE) * (width + 1)) if fits(classes, width) else 0


def block_preconditioner(data: Rows | MixedRows, parameters: torch.Tensor, penalty: float) -> Preconditioner:
    """Gradients [C, D+1] float64 -> the steps that each class's curvature at `parameters` [C, D+1] makes of them."""
    x, doubt = _with_doubt(data, parameters)
    n, width = x.shape
    mean = x.T @ x / n
    top, rows = doubt.topk(min(DOUBTFUL, n), 0)  # [m, C]
    left = (doubt.sum(0) - top.sum(0)) / n
    ridge = torch.full((width,), penalty, dtype=torch.float64, device=x.device)
    ridge[-1] = 0.0
    factors = x.new_empty(len(parameters), width, width)
    for c in range(len(parameters)):
        near = x[rows[:, c]]
        block = ((near * top[:, c : c + 1]).T @ near / n + left[c] * mean).double()
        # Directions without variance move by the penalty alone; where there is none, by this floor.
        floor = 1e-6 * float(block.diagonal().max()) + 1e-12
        factor = torch.linalg.cholesky(block + torch.diag(ridge + floor))
        if data.inverted:
            factor = torch.linalg.solve_triangular(
                factor, torch.eye(width, dtype=factor.dtype, device=x.device), upper=False
            )
        factors[c] = factor
    give_back()  # what single classes took

    def apply_inverted(*gradients: torch.Tensor) -> Sequence[torch.Tensor]:
        columns = torch.stack(gradients, 2).to(factors.dtype)  # what takes time is reading the factors: once for all
        return (factors.mT @ (factors @ columns)).double().unbind(2)

    def apply(*gradients: torch.Tensor) -> Sequence[torch.Tensor]:
        return [torch.cholesky_solve(g[:, :, None].to(factors.dtype), factors)[:, :, 0].double() for g in gradients]

    return apply_inverted if data.inverted else apply


def _with_doubt(data: Rows | MixedRows, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first rows [n, D+1], ones last, and p_c (1 - p_c) of each [n, C]: filled in, for copies of so many rows are
    what a fit's memory is counted by."""
    x, doubt, n = torch.empty(0), torch.empty(0), 0
    for part in _first(data, SAMPLE):
        if not n:
            x = part.new_ones(min(len(data), SAMPLE + len(part)), part.shape[1] + 1)
            doubt = part.new_empty(len(x), len(parameters))
            weight, bias = parameters[:, :-1].to(part.dtype), parameters[:, -1].to(part.dtype)
        chances = torch.softmax(torch.addmm(bias, part, weight.T), 1)
        torch.mul(chances, 1 - chances, out=doubt[n : n + len(part)])
        x[n : n + len(part), :-1] = part
        n += len(part)
    return x[:n], doubt[:n]


def spectrum(data: Rows | MixedRows) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues [K] and eigenvectors [D, K] of XᵀX/n over the first blocks of rows; K is D, or the rank of fewer rows
    than features, whose other eigenvalues are zero."""
    if len(data) < len(data.mean):
        x = torch.cat([part.to(torch.float64, copy=True) for part, _ in data])
        values, rows = torch.linalg.eigh(x @ x.T / len(x))
        kept = values > 1e-10 * values.max()
        return values[kept], x.T @ rows[:, kept] / (len(x) * values[kept]).sqrt()
    gram: torch.Tensor | None = None
    seen = 0
    for x in _first(data, max(SAMPLE, 4 * len(data.mean))):
        part = (x.T @ x).double()
        gram = part if gram is None else gram + part
        seen += len(x)
    if gram is None:
        raise EncoderError("no training rows: every row is held out or the training split is empty")
    values, vectors = torch.linalg.eigh(gram / seen)
    return values.clamp(min=0), vectors


def _first(data: Rows | MixedRows, count: int) -> Iterator[torch.Tensor]:
    """Blocks of features until `count` rows are there."""
    seen = 0
    for x, _ in data:
        yield x
        seen += len(x)
        if seen >= count:
            break
