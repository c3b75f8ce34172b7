"""Adafactor as vision transformers are trained with it, and torch's; both also run on parameters sharded by FSDP2.

torch's own squares the norms of columns in place, which a sharded gradient cannot do before its shards are summed.
Here each process works on its shards, and what runs over whole parameters is summed over the processes, for all
parameters at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist

Used = Sequence[tuple[torch.Tensor, dict[str, Any]]]  # parameters that have a gradient, each with its group


class Adafactor(torch.optim.Optimizer):
    """Zhai et al. 2021, "Scaling Vision Transformers" (arXiv 2106.04560, §3.4), with the values of big_vision's
    `scale_by_adafactor`: Adafactor (Shazeer and Stern, arXiv 1804.04235) whose step is `lr` itself, not a share of the
    parameter's size, with a first moment kept in bfloat16, β₂ capped, and no update clipped.

    A parameter [..., n, m], both at least `factored_from`, keeps the mean squared gradient of its rows, `row_var`
    [..., n, 1], and of its columns, `col_var` [..., 1, m]; others keep `variance`. big_vision keeps queries, keys
    and values as [D, heads, d] and factors D with the larger of the others; here they are [D, D]. Weight decay is
    multiplied by the rate, as AdamW's is. Means run over the whole parameter. The state exists from the start, sharded
    along the first dimension as its parameter is, so that a checkpoint can be copied into it. Parameters are all whole
    or all sharded alike, along the last dimension of one mesh; along another one of it they are copies.
    """

    beta2_decay = -0.8  # 1804.04235, §7.2: β₂ = 1 − step^−0.8
    added = 1e-30  # ε₁, to squared gradients
    factored_from = 32  # a matrix with a smaller side keeps its whole second moment
    momentum = 0.9  # β₁, without bias correction; 0: no first moment

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.0, beta2_cap: float = 0.999
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self.beta2_cap = beta2_cap
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = self._empty_state(parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient, on all processes together.

        The gradients are used up: the updates are written over them, which saves a copy of the parameters.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        used = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if used:
            mesh = getattr(used[0][0], "device_mesh", None)
            self._move(used, [_shard(p) for p, _ in used], [_shard(p.grad) for p, _ in used], mesh)
        return loss

    def _move(self, used: Used, shards: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], mesh: Any) -> None:
        self._divide(used, grads, mesh)
        for (parameter, group), shard, update in zip(used, shards, grads):
            kept = _shard(self.state[parameter]["momentum"])
            update.mul_(1 - self.momentum).add_(kept, alpha=self.momentum)
            kept.copy_(update)
            if group["weight_decay"]:
                shard.mul_(1 - group["lr"] * group["weight_decay"])
            shard.add_(update, alpha=-group["lr"])

    def _divide(self, used: Used, grads: Sequence[torch.Tensor], mesh: Any) -> None:
        """Moves the second moments and divides the gradients by their root."""
        factored = [grad if "row_var" in self.state[p] else None for (p, _), grad in zip(used, grads)]
        for (parameter, _), grad, squares in zip(used, grads, _column_squares(factored, mesh)):
            state = {k: _shard(v) for k, v in self.state[parameter].items()}
            state["step"] += 1
            # of this step's squares in the running means
            weight = max(state["step"].item() ** self.beta2_decay, 1 - self.beta2_cap)
            if squares is None:
                self._by_variance(grad, state["variance"].lerp_((grad * grad).add_(self.added), weight))
                continue
            rows, columns, shape = state["row_var"], state["col_var"], parameter.shape
            rows.lerp_(_squares(grad, -1).div_(shape[-1]).add_(self.added), weight)
            columns.lerp_(squares.div_(shape[-2]).add_(self.added), weight)  # over n, of all processes
            # The mean of all rows is the mean of all columns; where a process has some of the rows, columns are whole.
            cut = mesh is not None and grad.ndim == 2
            mean = columns.mean(-1, keepdim=True) if cut else rows.mean(-2, keepdim=True)
            self._by_factors(grad, rows, columns, mean)

    def _by_variance(self, grad: torch.Tensor, variance: torch.Tensor) -> None:
        grad.mul_(variance.rsqrt())

    def _by_factors(self, grad: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, mean: torch.Tensor) -> None:
        # The product of both would leave float32 where gradients are small.
        grad.mul_((rows / mean).rsqrt_()).mul_(columns.rsqrt())

    def _empty_state(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        state = {"step": torch.tensor(0.0)}
        if self.momentum:
            state["momentum"] = _zeros(parameter, None, torch.bfloat16)  # 2106.04560, §3.4: half precision does no harm
        if parameter.ndim < 2 or min(parameter.shape[-2:]) < self.factored_from:
            return {**state, "variance": _zeros(parameter, None)}
        return {**state, "row_var": _zeros(parameter, -1), "col_var": _zeros(parameter, -2)}


class TorchAdafactor(Adafactor):
    """Shazeer and Stern with the values and the order of operations of torch.optim.Adafactor: on whole parameters it
    gives the same bits. The rate is a share of each parameter's root mean square."""

    added = 0.0
    floor = 1e-3  # ε₂: the least root mean square of a parameter that scales its step
    largest = 1.0  # d: root mean square above which an update is scaled down
    factored_from = 1
    momentum = 0.0

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(groups, lr, weight_decay, beta2_cap=1.0)

    def _move(self, used: Used, shards: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], mesh: Any) -> None:
        sizes = _norms(shards, mesh)
        self._divide(used, grads, mesh)
        lengths = _norms(grads, mesh)
        for (parameter, group), shard, update, size, length in zip(used, shards, grads, sizes, lengths):
            root = parameter.numel() ** 0.5
            rate = max(self.floor, size / root) * min(group["lr"], 1 / self.state[parameter]["step"].item() ** 0.5)
            if group["weight_decay"]:
                shard.mul_(1 - group["lr"] * group["weight_decay"])
            shard.add_(update, alpha=-rate / max(1.0, length / (root * self.largest)))

    def _by_variance(self, grad: torch.Tensor, variance: torch.Tensor) -> None:
        eps = torch.finfo(grad.dtype).eps
        grad.mul_(variance.clamp(min=eps * eps).rsqrt_())

    def _by_factors(self, grad: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, mean: torch.Tensor) -> None:
        self._by_variance(grad, rows * columns / mean.clamp_(min=torch.finfo(grad.dtype).eps))


def _shard(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor, in the same memory; others as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _shards(mesh: Any) -> Any:
    """The group of processes that hold the parameters together with this one."""
    return mesh.get_group(mesh.ndim - 1)


def _norms(shards: Sequence[torch.Tensor], mesh: Any) -> list[float]:
    """The norm of each whole tensor."""
    norms = torch.stack([torch.linalg.vector_norm(shard) for shard in shards])
    if mesh is not None:
        dist.all_reduce(norms.square_(), group=_shards(mesh))
        norms.sqrt_()
    found: list[float] = norms.tolist()
    return found


def _squares(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """Sum of squares along `dim`, which is kept; a squared norm needs no squared copy of the tensor."""
    norms: torch.Tensor = torch.linalg.vector_norm(tensor, dim=dim, keepdim=True)
    return norms.square_()


def _column_squares(grads: Sequence[torch.Tensor | None], mesh: Any) -> list[torch.Tensor | None]:
    """[..., 1, m] for each gradient [..., n, m], over the whole of it; None stays None."""
    found = [None if grad is None else _squares(grad, -2) for grad in grads]
    cut = [squares for squares in found if squares is not None and squares.ndim == 2]  # others are cut elsewhere
    if mesh is not None and cut:
        packed = torch.cat(cut, 1)
        dist.all_reduce(packed, group=_shards(mesh))
        for squares, total in zip(cut, packed.split_with_sizes([squares.shape[1] for squares in cut], 1)):
            squares.copy_(total)
    return found


def _zeros(parameter: torch.Tensor, dim: int | None, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Zeros of the parameter's shape with one entry along `dim`; whole on every process where `dim` is the cut one."""
    shape, dtype = list(parameter.shape), dtype or parameter.dtype
    if dim is not None:
        shape[dim] = 1
    if not hasattr(parameter, "device_mesh"):
        return torch.zeros(shape, dtype=dtype, device=parameter.device)
    from torch.distributed.tensor import Replicate, Shard, zeros

    whole = dim is not None and dim % len(shape) == 0
    placements = [Replicate() if whole or placed.is_replicate() else Shard(0) for placed in parameter.placements]  # type: ignore[attr-defined]
    return zeros(shape, dtype=dtype, device_mesh=parameter.device_mesh, placements=placements)
