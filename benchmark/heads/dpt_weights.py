"""The DPT heads that TIPSv2's authors released, read into `DPT`.

`tips_v2_{b14,l14,so400m14,g14}_{segmentation,depth,normals}_dpt.zip` hold one .npy for each array of the Flax tree,
`decoder/dpt/reassemble_blocks/out_projection_0/kernel.npy`; an .npz with the same keys is the same file to us. Flax
keeps convolutions as [H, W, in, out], linear layers as [in, out], and transposed convolutions turned by 180° beside
torch's. The `…_dpt_pytorch.zip` of the same authors (keys `dpt.…` or `reassemble.…`) are in torch's layout but for
that turn, which their own loader makes as well.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmark.errors import WeightsError, reading
from benchmark.heads.dpt import CHANNELS, DPT
from benchmark.system.late import torch

PREFIX = "decoder/"
HEADS = ("pixel_segmentation", "pixel_depth_classif", "pixel_depth_regress", "pixel_normals", "segmentation_head")
TURNED = ("resize.0.weight", "resize.1.weight")


def load_dpt(path: Path | str, width: int, out: int) -> DPT:
    """The head of `path` for an encoder of width D and `out` output channels, on the CPU, in eval mode.

    Raises WeightsError naming the file and the key that is missing, not known or of another shape.
    """
    path = Path(path)
    arrays = read_arrays(path)
    flax = any("/" in key for key in arrays)
    channels = _channels(path, arrays, flax)
    with torch.device("meta"):
        model = DPT(width, out, channels)
    names = _flax_names(model) if flax else _torch_names(model)
    state, used = {}, set()
    for name, parameter in model.named_parameters():
        key = next((k for k in names[name] if k in arrays), None)
        if key is None:
            raise WeightsError(
                f"{path}: has no {names[name][0]}, which a DPT head needs. Is this the file of a DPT head?"
            )
        used.add(key)
        value = _to_torch(name, arrays[key], parameter.ndim) if flax else arrays[key]
        if name in TURNED:
            value = value[..., ::-1, ::-1]
        if value.shape != tuple(parameter.shape):
            raise WeightsError(
                f"{path}: {key} is {list(arrays[key].shape)}, which gives {list(value.shape)}; an encoder of width "
                f"{width} and {out} outputs need {list(parameter.shape)}. Take the head of the same size and task"
            )
        state[name] = torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))
    if extra := sorted(set(arrays) - used - {"bin_centers"}):
        raise WeightsError(f"{path}: {extra[0]} belongs to no part of a DPT head ({len(extra)} such keys)")
    model.load_state_dict(state, assign=True)
    return model.eval()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Key -> array of a zip of .npy files (an .npz is one). Raises WeightsError when it is none or holds objects."""
    found: dict[str, np.ndarray] = {}
    name = ""

    def where() -> str:
        return f"{path}: {name}" if name else str(path)

    whole = reading(where, "cannot be read as a zip of .npy files", "Fetch the file again", WeightsError)
    with whole, zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as f:
                    found[name.removesuffix(".npy").lstrip("./")] = np.lib.format.read_array(f, allow_pickle=False)
    if not found:
        raise WeightsError(f"{path}: holds no .npy file. Give a tips_v2_…_dpt.zip or an .npz")
    return found


def _channels(path: Path, arrays: Mapping[str, np.ndarray], flax: bool) -> int:
    keys = ("decoder/dpt/project/bias", "dpt/project/bias") if flax else ("dpt.project.bias", "project.bias")
    key = next((k for k in keys if k in arrays), None)
    if key is None:
        raise WeightsError(f"{path}: has no {keys[0]}, which a DPT head needs. Is this the file of a DPT head?")
    return arrays[key].size or CHANNELS


def _to_torch(name: str, value: np.ndarray, ndim: int) -> np.ndarray:
    if value.ndim != ndim:
        return value
    if value.ndim == 4:
        # torch keeps a convolution as [out, in, H, W] but a transposed one as [in, out, H, W].
        return value.transpose((2, 3, 0, 1) if name in TURNED else (3, 2, 0, 1))
    return value.T if value.ndim == 2 else value


def _flax_names(model: DPT) -> dict[str, list[str]]:
    """Our parameter -> the keys it may have in a Flax tree, the usual one first."""
    out = {}
    for name, _ in model.named_parameters():
        module, _, kind = name.rpartition(".")
        leaf = {"weight": "kernel", "bias": "bias"}[kind]
        if module == "head":
            out[name] = [f"{p}{head}/{leaf}" for p in (PREFIX, "") for head in HEADS]
        else:
            out[name] = [f"{p}dpt/{path}/{leaf}" for p in (PREFIX, "") for path in _flax_paths(module)]
    return out


def _flax_paths(module: str) -> list[str]:
    part, _, rest = module.partition(".")
    simple = {
        "readout": "reassemble_blocks/readout_projects_",
        "narrow": "reassemble_blocks/out_projection_",
        "resize": "reassemble_blocks/resize_layers_",
        "align": "convs_",
    }
    if part in simple:
        return [simple[part] + rest]
    if part == "project":
        return ["project"]
    block, _, inner = rest.partition(".")
    base = f"fusion_blocks_{block}"
    if inner == "out":
        return [f"{base}/Conv_0", f"{base}/out_conv"]
    unit, _, conv = inner.partition(".")
    number = 1 if unit == "main" and block != "0" else 0  # the first block has no skip unit
    return [f"{base}/PreActResidualConvUnit_{number}/{'conv1' if conv == 'first' else 'conv2'}"]


def _torch_names(model: DPT) -> dict[str, list[str]]:
    """Our parameter -> the keys it may have in the authors' torch files."""
    swaps: list[tuple[str, Callable[[str], str]]] = [
        ("readout.", lambda n: "reassemble.readout_projects." + n),
        ("narrow.", lambda n: "reassemble.out_projections." + n),
        ("resize.", lambda n: "reassemble.resize_layers." + n),
        ("align.", lambda n: "convs." + n),
        ("fusion.", lambda n: "fusion_blocks." + _unit(n)),
        ("project.", lambda n: "project." + n),
    ]
    out = {}
    for name, _ in model.named_parameters():
        if name.startswith("head."):
            leaf = name.removeprefix("head.")
            out[name] = [f"head.{leaf}", *(f"{head}.{leaf}" for head in HEADS)]
            continue
        start, rule = next((s, r) for s, r in swaps if name.startswith(s))
        theirs = rule(name.removeprefix(start))
        out[name] = [f"dpt.{theirs}", theirs]
    return out


def _unit(name: str) -> str:
    for ours, theirs in (
        (".skip.", ".residual_unit."),
        (".main.", ".main_unit."),
        (".out.", ".out_conv."),
        (".first.", ".conv1."),
        (".second.", ".conv2."),
    ):
        name = name.replace(ours, theirs)
    return name
