"""Adafactor that also runs on parameters sharded by FSDP2; on whole parameters it equals torch.optim.Adafactor.

torch's own squares the norms of columns in place, which a sharded gradient cannot do before its shards are summed.
Here each process works on its shards, and what runs over whole parameters is summed over the processes: three times
a step, for all parameters at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist


class Adafactor(torch.optim.Optimizer):
    """Shazeer and Stern (arXiv 1804.04235) with the values and the order of operations of torch.optim.Adafactor.

    A parameter [..., n, m] keeps the mean squared gradient of its rows, `row_var` [..., n, 1], and of its columns,
    `col_var` [..., 1, m]; a vector keeps `variance`. Means and norms run over the whole parameter. The state exists
    from the start, sharded along the first dimension as its parameter is, so that a checkpoint can be copied into it.
    Parameters are all whole or all sharded over one mesh of one dimension.
    """

    beta2_decay = -0.8  # 1804.04235, §7.2: β₂ = 1 − step^−0.8
    floor = 1e-3  # ε₂: the least root mean square of a parameter that scales its step
    largest = 1.0  # d: root mean square above which an update is scaled down

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = _empty_state(parameter)

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
        if not used:
            return loss
        mesh = getattr(used[0][0], "device_mesh", None)
        shards, grads = [_shard(p) for p, _ in used], [_shard(p.grad) for p, _ in used]
        sizes, columns = _norms(shards, mesh), _column_squares(grads, mesh)
        for (parameter, _), grad, squares in zip(used, grads, columns):
            self._scale(parameter, grad, squares, mesh is not None)
        lengths = _norms(grads, mesh)
        for (parameter, group), shard, update, size, length in zip(used, shards, grads, sizes, lengths):
            root = parameter.numel() ** 0.5
            rate = max(self.floor, size / root) * min(group["lr"], 1 / self.state[parameter]["step"].item() ** 0.5)
            if group["weight_decay"]:
                shard.mul_(1 - group["lr"] * group["weight_decay"])
            shard.add_(update, alpha=-rate / max(1.0, length / (root * self.largest)))
        return loss

    def _scale(self, parameter: torch.Tensor, grad: torch.Tensor, squares: torch.Tensor | None, cut: bool) -> None:
        """Moves the second moments and divides `grad` by their root; `squares` [..., 1, m] are summed over n."""
        state = {k: _shard(v) for k, v in self.state[parameter].items()}
        state["step"] += 1
        eps = torch.finfo(parameter.dtype).eps
        weight = state["step"].item() ** self.beta2_decay  # of this step's squares in the running means
        if squares is None:
            estimate = state["variance"].lerp_(grad * grad, weight).clone()
        else:
            rows, columns = state["row_var"], state["col_var"]
            rows.lerp_(_squares(grad, -1).div_(parameter.shape[-1]), weight)
            columns.lerp_(squares.div_(parameter.shape[-2]), weight)
            # The mean of all rows is the mean of all columns; where rows are cut, columns are whole.
            mean = columns.mean(-1, keepdim=True) if cut and grad.ndim == 2 else rows.mean(-2, keepdim=True)
            estimate = rows * columns / mean.clamp_(min=eps)
        grad.mul_(estimate.clamp_(min=eps * eps).rsqrt_())


def _shard(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor, in the same memory; others as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _norms(shards: Sequence[torch.Tensor], mesh: Any) -> list[float]:
    """The norm of each whole tensor."""
    norms = torch.stack([torch.linalg.vector_norm(shard) for shard in shards])
    if mesh is not None:
        dist.all_reduce(norms.square_(), group=mesh.get_group())
        norms.sqrt_()
    found: list[float] = norms.tolist()
    return found


def _squares(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """Sum of squares along `dim`, which is kept; a squared norm needs no squared copy of the tensor."""
    norms: torch.Tensor = torch.linalg.vector_norm(tensor, dim=dim, keepdim=True)
    return norms.square_()


def _column_squares(grads: Sequence[torch.Tensor], mesh: Any) -> list[torch.Tensor | None]:
    """[..., 1, m] for each gradient [..., n, m], over the whole of it; None for vectors."""
    found = [_squares(grad, -2) if grad.ndim > 1 else None for grad in grads]
    cut = [squares for squares in found if squares is not None and squares.ndim == 2]  # others are cut elsewhere
    if mesh is not None and cut:
        packed = torch.cat(cut, 1)
        dist.all_reduce(packed, group=mesh.get_group())
        for squares, total in zip(cut, packed.split_with_sizes([squares.shape[1] for squares in cut], 1)):
            squares.copy_(total)
    return found


def _empty_state(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    step = torch.tensor(0.0)
    if parameter.ndim < 2:
        return {"step": step, "variance": _zeros(parameter, None)}
    return {"step": step, "row_var": _zeros(parameter, -1), "col_var": _zeros(parameter, -2)}


def _zeros(parameter: torch.Tensor, dim: int | None) -> torch.Tensor:
    """Zeros of the parameter's shape with one entry along `dim`; whole on every process where `dim` is the cut one."""
    shape = list(parameter.shape)
    if dim is not None:
        shape[dim] = 1
    if not hasattr(parameter, "device_mesh"):
        return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
    from torch.distributed.tensor import Replicate, Shard, zeros

    placements = [Replicate() if dim is not None and dim % len(shape) == 0 else Shard(0)]
    return zeros(shape, dtype=parameter.dtype, device_mesh=parameter.device_mesh, placements=placements)
