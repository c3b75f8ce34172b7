"""From a model's name to a folder of weight files that are what they claim to be.

Files are checked before a model is built: a saved web page, a Git LFS pointer, a truncated safetensors file or a pickle
that runs code gets one line with the file's name, and no model is left half loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from benchmark.contracts import ModelSpec, WeightsInfo
from benchmark.digest import fingerprint, sha256_file
from benchmark.errors import UsageError, WeightsError

PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]
PICKLES = ["*.bin"]
INDICES = (("model.safetensors.index.json", "*.safetensors"), ("pytorch_model.bin.index.json", "*.bin"))


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json, checked weight files and where they came from."""

    folder: Path
    files: tuple[Path, ...]
    weights: WeightsInfo
    config: dict[str, Any]

    def read_json(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        return read_json(path) if path.is_file() else None


def locate(spec: ModelSpec) -> Checkpoint:
    """The checkpoint of `--weights`, of a folder named as `hf:FOLDER`, or of the hub. Raises WeightsError."""
    if spec.backend != "torch":
        raise UsageError(f"{spec.name} has no {spec.backend} backend. Use --backend torch")
    repo = spec.target or str(spec.row.get("hub", ""))
    if spec.weights:
        folder, source = local_folder(Path(spec.weights), spec.name), str(spec.weights)
    elif Path(repo).is_dir():
        folder, source = Path(repo), repo
    else:
        revision = str(spec.row.get("revision", "main"))
        folder = download(repo, revision, spec)
        commit = folder.name if len(folder.name) == 40 else revision
        source = f"{repo}@{commit}"
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{spec.name}: no config.json in {folder}. {how_to_get(repo, folder)}")
    config = read_json(folder / "config.json")
    files = weight_files(folder, spec.name, repo)
    for file in files:
        check_file(file, spec.name)
    digest = fingerprint({file.name: sha256_file(file) for file in files})
    return Checkpoint(folder, tuple(files), WeightsInfo(source, digest), config)


def local_folder(path: Path, name: str) -> Path:
    if path.is_dir():
        return path
    if path.is_file() and path.suffix in (".safetensors", ".bin") and (path.parent / "config.json").is_file():
        return path.parent
    if path.is_file():
        raise WeightsError(f"{name}: {path} has no config.json beside it. Give the folder that save_pretrained wrote")
    raise WeightsError(f"{name}: no folder {path}. Give --weights a folder with config.json and *.safetensors")


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path}: is no JSON ({error}). {page_hint(path)}Download it again") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: holds a {type(value).__name__}, expected an object. Download it again")
    return value


def weight_files(folder: Path, name: str, repo: str) -> list[Path]:
    """The safetensors shards (or the .bin files where there are none), all those that the index names."""
    for index_name, pattern in INDICES:
        index = folder / index_name
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            absent = [shard for shard in shards if not (folder / shard).is_file()]
            if absent:
                raise WeightsError(f"{name}: {index} names {absent[0]}, which is missing. {how_to_get(repo, folder)}")
            return [folder / shard for shard in shards]
        single = folder / index_name.removesuffix(".index.json")
        if single.is_file():
            return [single]
        found = sorted(folder.glob(pattern))
        if found:
            raise WeightsError(f"{name}: {folder} has {found[0].name}, expected {single.name}. Rename it if it is this")
    raise WeightsError(f"{name}: no model.safetensors in {folder}. {how_to_get(repo, folder)}")


def check_file(path: Path, name: str) -> None:
    """Raises WeightsError for a file that is no whole safetensors file, or a .bin that is more than tensors."""
    hint = page_hint(path)
    if hint:
        raise WeightsError(f"{name}: {path} holds no weights. {hint}Download it again")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as handle:
                handle.keys()
        except (SafetensorError, OSError, ValueError) as error:
            what = "it is a pickle" if looks_like_pickle(path) else str(error).splitlines()[0]
            raise WeightsError(f"{name}: {path} is no whole safetensors file ({what}). Download it again") from None
        return
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{name}: {path} cannot be read as plain tensors ({reason[:120]}). Use the .safetensors file of this model"
        ) from None


def page_hint(path: Path) -> str:
    with path.open("rb") as handle:
        head = handle.read(256).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "It is a web page (a login or error page saved under this name). "
    if head.startswith(b"version https://git-lfs"):
        return "It is a Git LFS pointer, not the file (git lfs pull). "
    return ""


def looks_like_pickle(path: Path) -> bool:
    with path.open("rb") as handle:
        head = handle.read(4)
    return head[:1] == b"\x80" or head == b"PK\x03\x04"


def how_to_get(repo: str, folder: Path | None = None) -> str:
    if not repo or Path(repo).is_dir():
        return "Save the model there with save_pretrained"
    place = f"into {folder}" if folder else "into one folder and pass --weights FOLDER"
    return f"Get config.json, model.safetensors and the tokenizer files from https://huggingface.co/{repo} {place}"


def download(repo: str, revision: str, spec: ModelSpec) -> Path:
    """The hub snapshot's folder, from the cache for a pinned commit that is there whole.

    Raises WeightsError that says what to fetch by hand, and where to put it.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    if not repo:
        raise WeightsError(f"{spec.name}: nowhere to get weights from. Pass --weights FOLDER")

    def cached() -> Path | None:
        try:
            folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled):
            return None
        return folder if (folder / "config.json").is_file() and is_whole(folder) else None

    try:
        pinned = len(revision) == 40
        folder = cached() if pinned or spec.offline else None
        if folder is None and not spec.offline:
            names = {f.rfilename for f in HfApi().model_info(repo, revision=revision, timeout=20).siblings or ()}
            safe = any(name.endswith(".safetensors") for name in names)
            patterns = PATTERNS if safe else [*PATTERNS, *PICKLES]
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
        if folder is not None:
            return folder
        reason = "--offline is set"
    except hub.GatedRepoError:
        raise WeightsError(
            f"{spec.name}: {repo} is gated. Accept its licence at https://huggingface.co/{repo}, then `hf auth login`. "
            f"Or: {how_to_get(repo)}"
        ) from None
    except hub.RevisionNotFoundError:
        raise WeightsError(f"{spec.name}: {repo} has no revision {revision}. See its commits on the hub") from None
    except hub.RepositoryNotFoundError:
        raise WeightsError(f"{spec.name}: no repository {repo} on the hub (if private: `hf auth login`)") from None
    except hub.HFValidationError:
        raise WeightsError(f"{spec.name}: {repo!r} is neither a folder here nor OWNER/NAME on the hub") from None
    except Exception as error:  # the HTTP client's own errors: no network, proxy, time-out
        folder = cached()
        if folder is not None:
            return folder
        reason = f"the hub cannot be reached ({type(error).__name__}: {error})"
    raise WeightsError(
        f"{spec.name}: {repo}@{revision} is not in the hub cache and {reason}. "
        f"{how_to_get(repo)}, or set HF_HOME to a cache that has them"
    )


def is_whole(folder: Path) -> bool:
    try:
        return bool(weight_files(folder, "", ""))
    except WeightsError:
        return False
