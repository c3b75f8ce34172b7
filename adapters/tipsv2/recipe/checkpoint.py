"""Checkpoints without pickle: every tensor in one safetensors file (`sharded`: in one for each process), the rest in
JSON with the digests of all, written atomically."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from adapters.tipsv2.recipe import sharded
from adapters.tipsv2.recipe.parallel import ALONE, Place
from benchmark.errors import BenchError, WeightsError, first_line
from benchmark.system import sealed
from benchmark.system.digest import sha256_file
from benchmark.system.files import disk_errors

TENSORS, FACTS, READINGS, TOKENIZER = "state.safetensors", "state.json", "metrics.jsonl", "tokenizer.model"
SCHEMA = 1  # of the facts: since then with digests


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    facts: Mapping[str, Any],
    keep: int,
    readings: Path | None = None,
    tokenizer: bytes = b"",
    where: Place = ALONE,
) -> Path:
    """Writes `folder`/step-N, with the tokeniser and a copy of the file of `readings` so far, through a temporary name
    and removes all but the newest `keep` (at least this one), and what kills have left.

    All processes of a run call this; of weights that are sharded each of those that hold the first copy writes its own
    part, else the first one writes.
    Raises BenchError in every process where one of them cannot write.
    """
    target, cuts = folder / f"step-{step:08d}", sharded.cut_along(tensors)
    staging = folder / f".{target.name}.part"
    with _together(where, staging):
        if where.first:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
    parts: dict[str, str] = {}
    if cuts:
        own = staging / sharded.file_name(where.rank, where.shards)
        with _together(where, own) as done:
            if where.rank < where.shards:  # the others hold copies
                write_tensors(own, sharded.own_part(tensors, where.rank))
                done.digest = sha256_file(own)
        digests = done.of_all[: where.shards]
        parts = {sharded.file_name(rank, where.shards): digest for rank, digest in enumerate(digests)}
        facts = {**facts, "cut": cuts, "processes": where.shards}
    with _together(where, target):  # one that ended before the others have written would end them
        if where.first:
            kept = []
            if not cuts:
                write_tensors(staging / TENSORS, tensors)
                kept.append(TENSORS)
            if tokenizer:
                (staging / TOKENIZER).write_bytes(tokenizer)
                kept.append(TOKENIZER)
            if readings and readings.is_file():
                shutil.copyfile(readings, staging / READINGS)
                kept.append(READINGS)
            files = parts | sealed.digests(staging, kept)
            sealed.write_json(staging / FACTS, {"schema": SCHEMA, **facts, "step": step, "files": files})
            if target.exists():
                target.rename(folder / f".{target.name}.before.part")
            staging.rename(target)
            for old in checkpoints(folder)[: -max(keep, 1)]:
                old.rename(folder / f".{old.name}.part")  # hidden first: half removed it would be no checkpoint
            for left in folder.glob(".step-*.part"):
                shutil.rmtree(left)
    return target


@dataclass
class _Done:
    """What a process has to tell of its part, and what all have told."""

    digest: str = "00" * sharded.DIGEST
    of_all: list[str] = field(default_factory=list)


@contextmanager
def _together(where: Place, path: Path) -> Iterator[_Done]:
    """No process goes on before all have done the block. Raises BenchError in all where one could not; that one raises
    its own error."""
    done = _Done()
    if where.world == 1:
        yield done
        return
    try:
        yield done
    except BaseException:
        sharded.agree(None, where.device)
        raise
    for rank, told in enumerate(sharded.agree(done.digest, where.device)):
        if told is None:
            raise BenchError(f"{path}: process {rank} could not write its part of the checkpoint; it says why")
        done.of_all.append(told)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: dict[str, str] | None = None) -> None:
    """A safetensors file, on the disk when this returns. Raises BenchError where the disk does not take it: of that the
    library tells as an error of its own."""
    with disk_errors(path):
        try:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path, facts)
        except SafetensorError as error:
            if found := re.search(r"\(os error (\d+)\)", str(error)):
                number = int(found[1])
                raise OSError(number, os.strerror(number), str(path)) from None
            raise
        _flush(path)


def _flush(path: Path) -> None:
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*") if (p / FACTS).is_file())


def load_checkpoint(path: Path) -> tuple[Mapping[str, torch.Tensor], dict[str, Any]]:
    """(tensors, facts); of a sharded one each tensor is made whole when it is asked for.

    Raises sealed.Damaged naming a file that is not what was written.

    One from before checkpoints held digests is taken as it is: it may be days of training.
    """
    facts = sealed.read_json(path / FACTS, since=SCHEMA)
    try:
        sealed.check_files(path, facts.get("files", {}))
        if "cut" in facts:
            return sharded.Parts(path, facts["processes"], facts["cut"]), facts
        return load_file(path / TENSORS), facts
    except (OSError, SafetensorError, AttributeError) as error:
        raise sealed.Damaged(f"{path / TENSORS}: is damaged ({first_line(error)})") from None


Found = tuple[Path, Mapping[str, torch.Tensor], dict[str, Any]]  # a checkpoint, its tensors and facts


def newest_whole(folder: Path) -> Found | None:
    """The last checkpoint that is what was written, its tensors and facts; None where there is none.

    Newer ones that are damaged are named and set aside as `damaged-step-N`.
    """
    for path in reversed(checkpoints(folder)):
        try:
            return path, *load_checkpoint(path)
        except FileNotFoundError:  # another process has set it aside
            continue
        except sealed.Damaged as e:
            aside = path.with_name(f"damaged-{path.name}")
            sealed.remake(path, e, f"it is set aside as {aside.name}, and training goes on from the one before")
            with suppress(OSError):  # of several processes the first moves it
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
    return None


def module_tensors(prefix: str, module: nn.Module, left_out: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """The module's parameters and buffers under `prefix`, sharded where they are; not those `left_out`."""
    return {f"{prefix}/{k}": v for k, v in module.state_dict().items() if not k.startswith(left_out)}


def restore_module(
    prefix: str, module: nn.Module, tensors: Mapping[str, torch.Tensor], where: Path, left_out: tuple[str, ...] = ()
) -> None:
    """Copies `module_tensors` back in place; a missing tensor or another shape is an error.

    Names that begin with one of `left_out` are in no checkpoint: they are frozen.
    """
    for name, value in module.state_dict().items():
        if name.startswith(left_out):
            continue
        stored = tensors.get(f"{prefix}/{name}")
        if stored is None or stored.shape != value.shape:
            found = "is missing" if stored is None else f"has shape {list(stored.shape)}, expected {list(value.shape)}"
            raise WeightsError(
                f"{where}: tensor {prefix}/{name} {found}. The checkpoint belongs to another configuration"
            )
        place(stored, value)


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Optimiser state under `optimizer/<parameter>/<key>`."""
    found = {}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    return found


def restore_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fills the optimiser's state from `optimizer_tensors`."""
    for name, parameter in module.named_parameters():
        prefix = f"optimizer/{name}/"
        state = {k.removeprefix(prefix): tensors[k] for k in tensors if k.startswith(prefix)}
        for key, value in state.items():
            kept = optimizer.state[parameter].get(key)  # an optimiser that makes its state early has placed it already
            if kept is None:
                optimizer.state[parameter][key] = like(value, parameter)
            else:
                place(value, kept)


@torch.no_grad()
def place(stored: torch.Tensor, target: torch.Tensor) -> None:
    """Copies a whole tensor into `target`, sharded or not."""
    target.copy_(like(stored.to(target.dtype), target))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a sharded one; others as they are."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(stored: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`stored` on the device of `target`, sharded as it is where the shapes agree."""
    moved = stored.to(target.device) if stored.ndim else stored
    if hasattr(target, "device_mesh") and stored.shape == target.shape:
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(moved, target.device_mesh, target.placements)  # type: ignore[attr-defined]
    return moved
