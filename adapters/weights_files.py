"""From a model's name to a folder of weight files that are what they claim to be.

Files are checked before a model is built: a saved web page, a Git LFS pointer, a truncated safetensors file or a pickle
that runs code gets one line with the file's name, and no model is left half loaded. A weight file that is named is the
one that is loaded, whatever else is in its folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from adapters.plausible import check_config
from adapters.state_dicts import PICKLED, convert_line, pickle_line
from benchmark.contracts import ModelSpec, WeightsInfo
from benchmark.errors import UsageError, WeightsError, first_line
from benchmark.system import sealed
from benchmark.system.digest import fingerprint, sha256_file
from benchmark.system.weight_folders import BESIDE

PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors", "*.py"]  # code is there to be read; nothing here runs it
PICKLES = ["*.bin"]
OTHERS = ["mlx_*", "*/mlx_*", "mlx/*", "flax_*", "*/flax_*", "flax/*", "*.msgpack"]  # copies for other libraries
ADAPTER = "adapter_config.json"  # of LoRA and its like, as peft saves them
INDICES = (("model.safetensors.index.json", "*.safetensors"), ("pytorch_model.bin.index.json", "*.bin"))


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json, checked weight files and where they came from."""

    folder: Path
    files: tuple[Path, ...]
    weights: WeightsInfo
    config: dict[str, Any]
    named: bool = False  # the user named the one file, which need not be the one that a loader finds in the folder

    def read_json(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        return read_json(path) if path.is_file() else None

    def processor(self) -> dict[str, Any] | None:
        """How the authors prepare pictures; saved with `transformers` 5 or later it is part of processor_config.json.

        None when neither file says it. Where both do, the library takes the newer one.
        """
        nested = (self.read_json("processor_config.json") or {}).get("image_processor")
        return nested if isinstance(nested, dict) else self.read_json("preprocessor_config.json")


def locate(spec: ModelSpec) -> Checkpoint:
    """The checkpoint of `--weights`, of a folder named as `hf:FOLDER`, or of the hub. Raises WeightsError.

    Its digest is over the weight files and all that decides what comes out beside them: config, processor, tokenizer,
    and the repository's own code where that is to run.
    """
    if spec.backend != "torch":
        raise UsageError(f"{spec.name} has no {spec.backend} backend. Use --backend torch")
    repo, file = spec.target or str(spec.row.get("hub", "")), None
    if spec.weights:
        (folder, file), source = local_place(Path(spec.weights), spec.name), str(spec.weights)
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
    if file is None and (folder / ADAPTER).is_file():  # the library applies it where peft is installed, and only there
        raise WeightsError(
            f"{spec.name}: {folder} holds an adapter ({ADAPTER}) beside the model. "
            "Save the merged model (peft's merge_and_unload), or give --weights the one file of the model without it"
        )
    files = [file] if file else weight_files(folder, spec.name, repo)
    for weights in files:
        check_file(weights, spec.name)
    check_config(folder / "config.json", config, files)
    code = sorted(folder.rglob("*.py")) if spec.trust_remote_code and "auto_map" in config else []
    beside = [path for path in (folder / name for name in BESIDE) if path.is_file()]
    digests = {p: sha256_file(p) for p in (*files, *beside, *code)}
    for path, found in digests.items():
        sealed.check_written(path, found)
    digest = fingerprint({p.relative_to(folder).as_posix(): found for p, found in digests.items()})
    return Checkpoint(folder, tuple(files), WeightsInfo(source, digest), config, file is not None)


def local_place(path: Path, name: str) -> tuple[Path, Path | None]:
    """The folder of a path that the user gave, and the weight file when it is one. Raises WeightsError."""
    if path.is_dir():
        return path, None
    if not path.is_file():
        raise WeightsError(f"{name}: no folder {path}. Give --weights a folder with config.json and *.safetensors")
    if path.suffix in PICKLED:
        raise WeightsError(f"{name}: {pickle_line(path)}")
    if path.suffix not in (".safetensors", ".bin"):
        raise WeightsError(
            f"{name}: {path} is no .safetensors file. Give one, or the folder that save_pretrained wrote"
        )
    if not (path.parent / "config.json").is_file():
        raise WeightsError(f"{name}: {path} has no config.json beside it. Give the folder that save_pretrained wrote")
    for index_name, _pattern in INDICES:
        index = path.parent / index_name
        shards = set(shards_of(index)) if index.is_file() else set()
        if path.name in shards and len(shards) > 1:
            raise WeightsError(f"{name}: {path} is one of the shards that {index_name} names. Give its folder")
    return path.parent, path


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises WeightsError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise WeightsError(f"{path}: is no JSON ({error}). {page_hint(path)}Download it again") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: holds a {type(value).__name__}, expected an object. Download it again")
    return value


def shards_of(index: Path) -> list[str]:
    """The files that an index names. Raises WeightsError for one that is no table of tensors."""
    found = read_json(index).get("weight_map", {})
    if not isinstance(found, dict) or not all(isinstance(v, str) and Path(v).name == v for v in found.values()):
        raise WeightsError(f"{index}: weight_map says no file for each tensor. Download it again")
    return sorted(set(found.values()))


def weight_files(folder: Path, name: str, repo: str) -> list[Path]:
    """What `transformers` would load: model.safetensors, else the shards its index names, else the same in .bin."""
    for index_name, pattern in INDICES:
        single = folder / index_name.removesuffix(".index.json")
        if single.is_file():  # also beside an index, which an earlier save in shards left behind
            return [single]
        index = folder / index_name
        if index.is_file():
            shards = shards_of(index)
            absent = [shard for shard in shards if not (folder / shard).is_file()]
            if absent:
                raise WeightsError(f"{name}: {index} names {absent[0]}, which is missing. {how_to_get(repo, folder)}")
            return [folder / shard for shard in shards]
        found = sorted(folder.glob(pattern))
        if found:
            raise WeightsError(
                f"{name}: {folder} has {found[0].name}, expected {single.name}. "
                f"If it is this, rename it, or give --weights {found[0]}"
            )
    pickled = sorted(p for p in folder.iterdir() if p.suffix in PICKLED)
    if pickled:
        raise WeightsError(f"{name}: no model.safetensors in {folder}, and {pickle_line(pickled[0])}")
    raise WeightsError(f"{name}: no model.safetensors in {folder}. {how_to_get(repo, folder)}")


def lone_file(path: Path, name: str) -> Path:
    """The whole .safetensors file that `--weights` names, or model.safetensors of its folder; no config.json is needed.

    Raises WeightsError for anything else.
    """
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise WeightsError(f"{name}: no file {path}. Give --weights FILE.safetensors, or a folder with one")
    if path.suffix in PICKLED or path.suffix == ".bin":
        raise WeightsError(f"{name}: {pickle_line(path)}")
    if path.suffix != ".safetensors":
        raise WeightsError(f"{name}: {path} is no .safetensors file. Give --weights FILE.safetensors")
    check_file(path, name)
    return path


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
        found = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:
        reason = first_line(error)
        raise WeightsError(
            f"{name}: {path} cannot be read as plain tensors ({reason[:120]}). Use the .safetensors file of this model"
        ) from None
    other = [str(k) for k, v in found.items() if not torch.is_tensor(v)] if isinstance(found, dict) else ["a list"]
    if other:
        raise WeightsError(f"{name}: {path} holds {other[0]!r} beside or around its tensors. {convert_line(path)}")


def page_hint(path: Path) -> str:
    """What a file that should hold JSON or weights seems to be, with a space behind; "" unknown."""
    with path.open("rb") as handle:
        head = handle.read(256).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "It is a web page (a login or error page saved under this name). "
    if head.startswith(b"version https://git-lfs"):
        return "It is a Git LFS pointer, not the file (git lfs pull). "
    return ""


def looks_like_pickle(path: Path) -> bool:
    """By its first bytes: a pickle, or the zip that torch.save makes of one."""
    with path.open("rb") as handle:
        head = handle.read(4)
    return head[:1] == b"\x80" or head == b"PK\x03\x04"


def how_to_get(repo: str, folder: Path | None = None) -> str:
    """The sentence that says where the files of `repo` come from."""
    if not repo or Path(repo).is_dir():
        return "Save the model there with save_pretrained"
    place = f"into {folder}" if folder else "into one folder and pass --weights FOLDER"
    return f"Get config.json, model.safetensors and the tokenizer files from https://huggingface.co/{repo} {place}"


def download(repo: str, revision: str, spec: ModelSpec) -> Path:
    """The hub snapshot's folder, from the cache for a pinned commit that is there whole.

    Raises WeightsError that says what to fetch by hand, and where to put it.
    """
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    from huggingface_hub import errors as hub

    if not repo:
        raise WeightsError(f"{spec.name}: nowhere to get weights from. Pass --weights FOLDER")

    def cached(whole: bool) -> Path | None:
        # With `whole`, a copy that lacks any file that would be fetched is none: an interrupted download goes on.
        try:
            if whole:
                wanted: dict[str, Any] = {"allow_patterns": PATTERNS, "ignore_patterns": OTHERS}
                snapshot_download(repo, revision=revision, local_files_only=True, **wanted)
        except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled):
            return None
        config = try_to_load_from_cache(repo, "config.json", revision=revision)
        folder = Path(config).parent if isinstance(config, str) else None
        return folder if folder and is_whole(folder) else None

    try:
        pinned = len(revision) == 40
        folder = cached(whole=not spec.offline) if pinned or spec.offline else None
        if folder is None and not spec.offline:
            names = {f.rfilename for f in HfApi().model_info(repo, revision=revision, timeout=20).siblings or ()}
            safe = any(name.endswith(".safetensors") for name in names)
            patterns = PATTERNS if safe else [*PATTERNS, *PICKLES]
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=OTHERS))
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
        folder = cached(whole=False)
        if folder is not None:
            return folder
        reason = f"the hub cannot be reached ({type(error).__name__}: {error})"
    raise WeightsError(
        f"{spec.name}: {repo}@{revision} is not in the hub cache and {reason}. "
        f"{how_to_get(repo)}, or set HF_HOME to a cache that has them"
    )


def pinned_file(spec: ModelSpec, file: str) -> str | None:
    """The `file` of a library's row at its pinned commit, from the cache or the hub; None where none is pinned.

    Raises WeightsError that says what to fetch by hand.
    """
    from huggingface_hub import hf_hub_download

    if spec.weights or "revision" not in spec.row:
        return None
    repo, revision = spec.row["hub"], spec.row["revision"]
    try:
        return hf_hub_download(repo, file, revision=revision, local_files_only=spec.offline)
    except Exception as error:  # the HTTP client's own errors: no network, proxy, time-out
        raise WeightsError(
            f"{spec.name}: {repo}@{revision} cannot be had ({first_line(error)[:120]}). By hand: hf download {repo} "
            f"{file} --revision {revision} --local-dir {spec.name}, then --weights {spec.name}"
        ) from error


def is_whole(folder: Path) -> bool:
    """Whether `folder` has all files that its index names."""
    try:
        return bool(weight_files(folder, "", ""))
    except WeightsError:
        return False
