"""Reading weight files without trusting them: no pickle, whole archives only, errors that name file and key."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from benchmark.errors import WeightsError

AGAIN = "Download it again"
INDEX = "model.safetensors.index.json"


def read_npz(path: Path) -> dict[str, torch.Tensor]:
    """Every array of an `.npz`, in file order.

    Raises WeightsError when the file is missing, truncated, not an archive of arrays (a web page, a pointer file), or
    holds a pickle.
    """
    _refuse_impostors(path)
    if not zipfile.is_zipfile(path):
        with path.open("rb") as f:
            cut = f.read(2) == b"PK"
        what = "is truncated (the archive's directory at the end is missing)" if cut else "is not an .npz archive"
        raise WeightsError(f"{path} {what}. {AGAIN}")
    arrays: dict[str, torch.Tensor] = {}
    key = ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                arrays[key] = _tensor(archive[key], path, key)
    except WeightsError:
        raise
    except Exception as e:  # whatever a damaged archive raises: BadZipFile, EOFError, zlib.error, ValueError …
        if "pickle" in str(e).lower():
            raise WeightsError(f"{path}: {key!r} is a pickle, which can run code; it is not loaded. {AGAIN}") from None
        raise WeightsError(f"{path}: {key!r} cannot be read ({e}). The file is damaged. {AGAIN}") from None
    return arrays


def read_safetensors(paths: Iterable[Path]) -> dict[str, torch.Tensor]:
    """Every tensor of the given shards. Raises WeightsError naming the file and the key."""
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        _refuse_impostors(path)
        try:
            with safe_open(path, framework="pt") as shard:
                tensors |= {key: shard.get_tensor(key) for key in shard.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as e:
            raise WeightsError(f"{path} cannot be read ({e}): truncated or not safetensors. {AGAIN}") from None
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise WeightsError(f"{path}: {key!r} is {value.dtype}, weights are floating point. {AGAIN}")
    return tensors


def safetensors_shards(folder: Path) -> list[Path]:
    """`model.safetensors`, or the shards its index names; empty when the folder has neither."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not (folder / INDEX).is_file():
        return []
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise WeightsError(f"{folder / INDEX} cannot be read ({e!r}). {AGAIN}") from None
    for name in names:
        if Path(name).name != name:
            raise WeightsError(f"{folder / INDEX} names {name!r}, outside its folder. {AGAIN}")
    return [folder / name for name in names]


def _refuse_impostors(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file. {AGAIN}")
    with path.open("rb") as f:
        head = f.read(256).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise WeightsError(f"{path} is a web page, not weights: the download failed. {AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer, not weights. Run: git lfs pull")


def _tensor(array: np.ndarray, path: Path, key: str) -> torch.Tensor:
    if array.dtype.kind != "f":
        raise WeightsError(f"{path}: {key!r} is {array.dtype}, weights are floating point. {AGAIN}")
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
