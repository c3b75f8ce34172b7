"""Loading an encoder by name, and knowing whether it has changed without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmark.checkpoints import read_with
from benchmark.contracts import Encoder, ModelSpec
from benchmark.digest import fingerprint
from benchmark.engine.network import forbid_network
from benchmark.errors import EncoderError, UsageError
from benchmark.registry import build_encoder, check_model_name, code_versions_of, is_own_code, models
from benchmark.results import slug

LOCAL_LICENCE = "unknown (local)"  # that of the name's published weights says nothing of a checkpoint of one's own
INSTALLED = {"site-packages", "dist-packages"}


def require_weights(weights: str | Path | None) -> None:
    """Raises UsageError for a checkpoint that is not there."""
    if weights is not None and not Path(weights).exists():
        raise UsageError(f"--weights {weights}: no such file or folder")


def load_encoder(
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
                f"{name}: the object it builds has no {member!r}. See the Encoder contract in benchmark/contracts.py"
            )
    if not is_own_code(name) and (weights is not None or _local(name)):
        encoder.card = replace(encoder.card, licence=LOCAL_LICENCE)
    for option, families in (("gelu", "TIPS and TIPSv2"), ("positions", "DINOv2")):
        asked = spec.options.get(option)
        if asked and dict(encoder.card.options).get(option) != asked:
            raise UsageError(f"--{option} {asked}: {name} has no such choice; it is for {families}")
    return encoder


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

    own = getattr(encoder, "device", None)
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


def display_name(name: str, weights: str | None) -> str:
    """The model's name in rows: `name@parent-checkpoint-1a2b3c` with a local checkpoint, `hf:parent-folder-1a2b3c` for
    a local folder, `file-1a2b3c:function` for a file of the user's own, `package.module-1a2b3c:function` for a module
    that is not installed.

    The six digits are of the whole path: two runs that both end in `final` are two models, whatever was scored before,
    and a checkpoint trained anew at the same path is the same one. The part after `@` is safe as a folder's name.
    """
    place, _, function = name.rpartition(":")
    if is_own_code(name) and place.endswith(".py"):
        name = f"{Path(place).stem}-{digits_of(place)}:{function}"
    elif is_own_code(name) and (file := _module_file(place)):
        name = f"{place}-{digits_of(file)}:{function}"
    elif name.startswith("hf:") and Path(folder := name.removeprefix("hf:")).is_dir():
        name = f"hf:{_place(folder)}"
    return name if weights is None else f"{name}@{_place(weights)}"


def _place(path: str) -> str:
    parts = [slug(part) for part in Path(path).resolve().parts[-2:] if slug(part) != "unnamed"]
    return "-".join([*parts, digits_of(path)])


def digits_of(path: str) -> str:
    """Six digits of the whole path, however it is written."""
    return fingerprint(Path(path).resolve())[:6]


def _module_file(place: str) -> str | None:
    """The file of a module, found without importing it; None for an installed one, whose name is all that tells it."""
    head, *rest = place.split(".")
    try:
        spec = find_spec(head)
        for part in rest:
            above = spec.submodule_search_locations if spec else None
            spec = PathFinder.find_spec(f"{spec.name}.{part}", above) if spec and above else None
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.has_location or INSTALLED & set(Path(str(spec.origin)).parts):
        return None
    return spec.origin


def model_stamp(name: str, weights: str | None, encoder: Encoder | None = None) -> str:
    """A digest that changes when the model behind a name may have changed.

    For a registered model it costs a few `stat` calls and loads nothing: the adapter's code version is data. Code of
    the user's own may read any file, so that only the loaded `encoder` can tell: what decides its outputs is in the
    digest where it is given.
    """
    check_model_name(name)
    row = {k: v for k, v in models().get(name, {}).items() if k != "entry_point"}
    own = is_own_code(name)
    files: list[str] = []
    for candidate in [weights or "", name.removeprefix("hf:") if name.startswith("hf:") else ""]:
        path = Path(candidate)
        if candidate and path.is_file():
            files += [_stat(p, p.name) for p in read_with(path)]
        elif candidate and path.is_dir():
            files += [_stat(p, p.relative_to(path).as_posix()) for p in sorted(path.rglob("*")) if p.is_file()]
    # One file is one model however its path is written: the row lies in one folder, too.
    stamp: dict[str, Any] = {"name": display_name(name, None), "row": row, "files": files}
    if versions := code_versions_of(name):
        stamp["code"] = versions
    if own and encoder is not None:
        from benchmark.features.plan import identity  # it imports torch

        stamp["encoder"] = identity(encoder.card)
    return fingerprint(stamp)


def _stat(path: Path, name: str) -> str:
    s = path.stat()
    return f"{name}:{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}"  # cp -p keeps the second, nothing keeps the third
