"""Which device and which float type a torch encoder runs in."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from benchmark.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def pick_device(device: str) -> torch.device:
    """`auto` is the first GPU, or the CPU. Raises UsageError for a device this machine lacks."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}. Use auto, cpu, cuda or cuda:N") from None
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {device!r} is not here: torch sees {torch.cuda.device_count()} GPU(s). Use --device cpu"
        )
    return picked


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a GPU that computes in it, float32 elsewhere: on a CPU bfloat16 is several times slower."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(False) else torch.float32
    name = SHORT.get(dtype, dtype)
    if name not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}. Use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def wants_compile(options: Mapping[str, str]) -> bool:
    """Whether --compile was given."""
    return options.get("compile", "no") not in ("no", "false", "0")


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" of torch.float32."""
    return str(dtype).removeprefix("torch.")
