"""Loading an encoder by name, and knowing whether it has changed without loading it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from benchmark.contracts import Encoder, EncoderExtras, ModelSpec
from benchmark.engine.network import forbid_network
from benchmark.errors import EncoderError, UsageError
from benchmark.registry import build_encoder, is_own_code, state_of

LOCAL_LICENCE = "unknown (local)"  # that of the name's published weights says nothing of a checkpoint of one's own
INSTALLED = {"site-packages", "dist-packages"}


def require_weights(weights: str | Path | None) -> None:
    """Raises UsageError for a checkpoint that is not there."""
    if weights is not None and not Path(weights).exists():
        raise UsageError(f"--weights {weights}: no such file or folder")


def open_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    backend: str = "torch",
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    trust_remote_code: bool = False,
    options: Mapping[str, str] | None = None,
) -> Encoder:
    """The encoder called `name`, ready to encode.

    `name` is a registered model (`bench ls models`), `hf:REPO_OR_FOLDER`, `timm:NAME`, `open_clip:ARCH/TAG`,
    `path/to/file.py:function` or `package.module:function`; `weights` a local checkpoint for it.
    Raises UsageError for an unknown name, WeightsError for weights that cannot be used.
    """
    if offline:
        forbid_network()
    require_weights(weights)
    spec = ModelSpec(
        name,
        weights=None if weights is None else str(weights),
        backend=backend,
        device=device if (backend, device) == ("jax", "auto") else resolve_device(device),  # torch and JAX may differ
        dtype=dtype,
        offline=offline,
        trust_remote_code=trust_remote_code,
        options=dict(options or {}),
    )
    if spec.device.startswith("cuda"):
        import torch

        torch.backends.cudnn.allow_tf32 = False  # torch's default would round a float32 convolution to 10 bits
    encoder = build_encoder(spec)
    for member in ("card", "transform", "encode_image"):
        if not hasattr(encoder, member):
            raise EncoderError(
                f"{name}: the object it builds has no {member!r}. See the Encoder contract in benchmark/contracts"
            )
    if not is_own_code(name) and (weights is not None or _local(name)):
        encoder.card = replace(encoder.card, licence=LOCAL_LICENCE)
    for option, families in (("gelu", "TIPS and TIPSv2"), ("positions", "families of adapters/positions.toml")):
        asked = spec.options.get(option)
        if asked and dict(encoder.card.options).get(option) != asked:
            raise UsageError(f"--{option} {asked}: {name} has no such choice; it is for {families}")
    return encoder


_loaded: WeakKeyDictionary[Encoder, str] = WeakKeyDictionary()  # made by `load_encoder` -> its state then


@functools.wraps(open_encoder)
def load_encoder(*words: Any, **options: Any) -> Encoder:  # noqa: D103
    encoder = open_encoder(*words, **options)
    with suppress(TypeError):  # an object that cannot be a key
        _loaded[encoder] = state_of(encoder)
    return encoder


load_encoder.__name__ = load_encoder.__qualname__ = "load_encoder"


def as_loaded(encoder: Encoder) -> bool:
    """Whether the object is as `load_encoder` made it: then its card tells its weights."""
    try:
        return _loaded.get(encoder) == state_of(encoder)
    except TypeError:
        return False


def _local(name: str) -> bool:
    """Whether a `hf:`, `timm:` or `open_clip:` name is a place on this machine."""
    place = name.partition(":")[2].removeprefix("local-dir:")
    return ":" in name and Path(place).exists()


def resolve_device(device: str) -> str:
    """`auto` is a CUDA GPU where there is one, else the CPU.

    Raises UsageError for a device that torch does not see, or that has no float64: heads and metrics decide in it.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: torch sees no CUDA GPU. Use --device cpu")
    try:
        torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device!r} is no device. Use cpu, cuda or cuda:N") from None
    if device.partition(":")[0] not in ("cpu", "cuda"):
        try:
            torch.zeros(1, dtype=torch.float64, device=device).item()
        except (RuntimeError, TypeError, AssertionError, NotImplementedError) as e:
            reason = str(e).splitlines()[0].rstrip(".")
            raise UsageError(f"--device {device}: cannot be used ({reason}). Use cpu, cuda or cuda:N") from None
    return device


def device_of(encoder: Encoder, asked: str = "auto") -> str:
    """Where `encoder` wants its pictures: its `device`, that of a module it holds, what was `asked` for, or the CPU.

    The CPU also where torch does not see the device: a JAX encoder takes its pictures from there.
    """
    import torch

    own = EncoderExtras.of(encoder).device
    if own is not None:
        try:
            return resolve_device(str(own))
        except UsageError:
            return "cpu"
    modules = [encoder, *getattr(encoder, "__dict__", {}).values()]
    for module in modules:
        parameter = next(module.parameters(), None) if isinstance(module, torch.nn.Module) else None
        if parameter is not None:
            return str(parameter.device)
    return "cpu" if asked == "auto" else asked
