"""Weights as a plain table of tensors: read from exact files, freed of the prefix that training wrappers add."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel's and torch.compile's
PICKLED = (".pt", ".pth", ".ckpt")  # what training loops write with torch.save
Tensors = dict[str, torch.Tensor]


def wrapper_of(keys: Iterable[str]) -> str:
    """The prefix all `keys` share because a wrapper was saved for its model, e.g. "module._orig_mod."; else ""."""
    names, prefix = list(keys), ""
    while names and (
        found := next((w for w in WRAPPERS if all(n.removeprefix(prefix).startswith(w) for n in names)), "")
    ):
        prefix += found
    return prefix


def unwrapped(tensors: Tensors) -> Tensors:
    """The same tensors, their names without a wrapper's prefix."""
    prefix = wrapper_of(tensors)
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def names_in(files: Iterable[Path]) -> list[str]:
    """Names of all tensors in checked files; nothing is read into memory."""
    names: list[str] = []
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as handle:
                names += handle.keys()
        else:
            names += torch.load(path, map_location="meta", weights_only=True)
    return names


def read_tensors(files: Iterable[Path]) -> Tensors:
    """Every tensor of checked .safetensors or .bin files, on the CPU, without a wrapper's prefix."""
    tensors: Tensors = {}
    for path in files:
        safe = path.suffix == ".safetensors"
        tensors |= load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    return unwrapped(tensors)


def without_place(model: nn.Module, left_over: Iterable[str], prefix: str = "") -> list[str]:
    """The keys left over that belong inside the model's blocks: deeper ones, adapters, biases it was built without.

    A head beside the blocks may be left over, and so may buffers, which the model rebuilds. `prefix` is what a file
    may have before the model's own names.
    """
    lists = tuple(
        f"{name}." for name, part in model.named_modules() if isinstance(part, (nn.ModuleList, nn.Sequential))
    )
    buffers = {name for name, _ in model.named_buffers()}
    inside = ((key, key.removeprefix(prefix)) for key in left_over)
    return sorted(key for key, name in inside if name.startswith(lists) and name not in buffers)


def no_place_line(keys: Sequence[str]) -> str:
    """What is said of weights that the model has no place for."""
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    return (
        f"has {keys[0]}{more} inside the blocks, where the model has no such weight and would be run without it. "
        "Another variant or config.json? An adapter (LoRA) has to be merged first"
    )


def pickle_line(path: Path) -> str:
    """What to say about a pickled checkpoint, which is never opened."""
    return f"{path} is a pickle, which can run code and is never opened. {convert_line(path)}"


def convert_line(path: Path) -> str:
    """The command that turns tensors pickled by torch.save into a .safetensors file, for the user to run."""
    out = path.with_suffix(".safetensors")
    return (
        'If you trust it, convert it: python -c "import torch; from safetensors.torch import save_file; '
        f"t = torch.load('{path}', map_location='cpu', weights_only=True); "
        "t = t.get('state_dict', t.get('model', t)); "
        f"save_file({{k: v.clone().contiguous() for k, v in t.items()}}, '{out}')\", then give --weights {out}"
    )
