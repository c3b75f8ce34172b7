"""Features of any origin as blocks of float rows, standardised once where memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.errors import DataError, EncoderError
from benchmark.metrics.exact_products import rows_of
from benchmark.system.late import torch

BLOCK = 16_384  # rows per block: the logits of 150 classes stay below 10 MB
READ = 2_048  # rows read at a time where a block is filled


@dataclass(frozen=True)
class Scaler:
    """Mean and inverse standard deviation per feature [D] float64, from training rows only."""

    mean: torch.Tensor
    inverse: torch.Tensor

    def fold(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [C, D] and bias [C] on raw features that equal the given ones on standardised features."""
        folded = weight * self.inverse
        return folded, bias - folded @ self.mean


def fit_scaler(x: Any, rows: np.ndarray, device: str, standardize: bool = True, block: int = BLOCK) -> Scaler:
    """Two moments over `rows` of x [n, D], `block` of them at a time; a constant feature keeps scale 1.

    EncoderError names a non-finite row."""
    total: torch.Tensor | None = None
    squares: torch.Tensor | None = None
    origin: torch.Tensor | None = None
    held = torch.empty(0)
    for index in _chunks(rows, block):
        for i, few in enumerate(_chunks(index, READ)):
            found = rows_of(x, few, device)
            if origin is None and i == 0:  # a block in float64 is held once
                held = torch.empty(min(block, len(rows)), found.shape[1], dtype=torch.float64, device=found.device)
            held[i * READ : i * READ + len(few)] = found
        part = held[: len(index)]
        origin = part[0].clone() if origin is None else origin  # moments about a nearby point keep their digits
        if not bool(torch.isfinite(part).all()):
            bad = int(index[int((~torch.isfinite(part)).any(1).nonzero()[0, 0])])
            raise EncoderError(f"feature row {bad} holds NaN or infinity: check the encoder on this sample")
        part -= origin
        total = part.sum(0) if total is None else total + part.sum(0)
        more = part.pow_(2).sum(0)
        squares = more if squares is None else squares + more
    if total is None or squares is None or origin is None:
        raise EncoderError("no training rows: every row is held out or the training split is empty")
    shift = total / len(rows)
    variance = (squares / len(rows) - shift**2).clamp(min=0)
    spread = torch.where(variance > 1e-12 * (squares / len(rows) + origin**2), variance, 1.0)
    mean = origin + shift
    return Scaler(mean, spread.rsqrt()) if standardize else Scaler(torch.zeros_like(mean), torch.ones_like(mean))


class FewRows:
    """Rows `numbers` (ascending) of features [n, D], in memory, asked for by the numbers that they have among all.

    What is asked for lies where the last answer did: new memory for each block would cost more than the copy.
    """

    def __init__(self, x: Any, numbers: np.ndarray, device: str) -> None:
        self.numbers = numbers
        self.values = torch.empty(len(numbers), x.shape[1], device=device)
        for start in range(0, len(numbers), BLOCK):
            self.values[start : start + BLOCK] = rows_of(x, numbers[start : start + BLOCK], device)
        self._answer = torch.empty(min(BLOCK, len(numbers)), x.shape[1], device=device)

    def __getitem__(self, rows: np.ndarray) -> torch.Tensor:
        """[k, D] of at most BLOCK rows."""
        at = torch.from_numpy(np.searchsorted(self.numbers, rows)).to(self.values.device)
        return torch.index_select(self.values, 0, at, out=self._answer[: len(rows)])


class Rows:
    """Blocks (features [b, D], labels [b]) of the chosen rows; features standardised, in `dtype`, on `device`. A block
    may lie where the next one will."""

    inverted = False  # whether a preconditioner may be inverted and shared from the start: quicker, but rows that are
    # there have other last digits

    def __init__(
        self, x: Any, y: torch.Tensor, rows: np.ndarray, scaler: Scaler, device: str, dtype: torch.dtype, keep: int,
        block: int = BLOCK,
    ) -> None:  # fmt: skip
        self.x, self.rows, self.device, self.dtype, self.block = x, rows, device, dtype, block
        self.y = y[torch.from_numpy(rows)].to(device)
        self.mean, self.inverse = scaler.mean.to(dtype), scaler.inverse.to(dtype)
        width = len(scaler.mean)
        itemsize = torch.empty((), dtype=dtype).element_size()
        self.narrow, self.stored = torch.empty(0, dtype=torch.float16), list[torch.Tensor]()
        if len(rows) * width * itemsize <= keep:
            self.narrow = self._in_float16(width)
            if not len(self.narrow):
                self.stored = [self._load(index) for index in _chunks(rows, block)]
        self._ready = torch.empty(min(block, len(self.narrow)), width, dtype=dtype)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for i, index in enumerate(_chunks(self.rows, self.block)):
            at = slice(i * self.block, i * self.block + len(index))
            if len(self.narrow):
                part = self._standardised(self._ready[: len(index)].copy_(self.narrow[at]))
            else:
                part = self.stored[i] if self.stored else self._load(index)
            yield part, self.y[at]

    def scores(self, parameters: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Blocks (logits [b, C], labels [b]) of standardised parameters [C, D+1]."""
        weight, bias = parameters[:, :-1].to(self.dtype), parameters[:, -1].to(self.dtype)
        for x, y in self:
            yield torch.addmm(bias, x, weight.T), y

    def loss(self, parameters: torch.Tensor) -> tuple[float, torch.Tensor]:
        """The sum of cross-entropies, and its gradient by the standardised parameters [C, D+1] float64."""
        loss, grad = 0.0, torch.zeros_like(parameters)
        narrow, narrow_bias = parameters[:, :-1].to(self.dtype), parameters[:, -1].to(self.dtype)
        for x, y in self:
            log_p = torch.log_softmax(torch.addmm(narrow_bias, x, narrow.T), 1)
            loss -= float(log_p.gather(1, y[:, None]).sum(dtype=torch.float64))
            residual = log_p.exp_()
            residual[torch.arange(len(y), device=y.device), y] -= 1
            grad[:, :-1] += residual.T @ x
            grad[:, -1] += residual.sum(0)
        return loss, grad

    def _load(self, index: np.ndarray) -> torch.Tensor:
        return self._standardised(rows_of(self.x, index, self.device).to(self.dtype))

    def _in_float16(self, width: int) -> torch.Tensor:
        """[n, D] as they come: a CPU's memory takes those of a float16 store half as large. Empty where that would
        round them."""
        kept = torch.empty(len(self.rows) if self.device == "cpu" else 0, width, dtype=torch.float16)
        for i in range(0, len(kept), READ):
            part = rows_of(self.x, self.rows[i : i + READ], self.device)
            kept[i : i + len(part)] = part
            if not torch.equal(kept[i : i + len(part)].float(), part):
                return kept[:0].clone()
        return kept

    def _standardised(self, part: torch.Tensor) -> torch.Tensor:
        return part.sub_(self.mean).mul_(self.inverse)


def class_indices(y: torch.Tensor | np.ndarray, lengths: Sequence[int], num_classes: int) -> torch.Tensor:
    """[n] int64 labels on the CPU, one for each row of descriptions of these lengths. Raises DataError."""
    labels = torch.as_tensor(y).long().cpu()
    if wrong := [n for n in lengths if n != len(labels)]:
        raise DataError(f"{len(labels)} labels for {wrong[0]} feature rows: there must be one each")
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        bad = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise DataError(f"label {bad} is outside 0 … {num_classes - 1}: drop ignored pixels before fitting")
    return labels


def folds_of(holdout: np.ndarray | torch.Tensor) -> np.ndarray:
    """[n] the fold each row is held out in, -1 for none. DataError when no row or every row is in the only fold."""
    given = np.asarray(holdout)
    folds = np.where(given, 0, -1) if given.dtype == bool else given
    if folds.max(initial=-1) < 0 or (folds == folds[0]).all():
        raise DataError(f"{int((folds >= 0).sum())} of {len(folds)} rows are held out: some must be, and not all")
    return folds


def _chunks(rows: np.ndarray, block: int = BLOCK) -> Iterator[np.ndarray]:
    for i in range(0, len(rows), block):
        yield rows[i : i + block]
