"""Where a model's files are: a folder of the user's, a folder inside the package, or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from adapters.state_dicts import PICKLED, pickle_line
from adapters.tipsv2.files import safetensors_shards
from adapters.weights_files import download, local_place, locate
from benchmark.contracts import ModelSpec
from benchmark.errors import UsageError, WeightsError
from benchmark.registry import models

TOKENIZER = "tokenizer.model"
OFFICIAL = "https://storage.googleapis.com/tips_data"


@dataclass(frozen=True)
class Source:
    """The files of one model. `npz` is the official pair, `shards` a transformers folder; one of them is empty."""

    name: str  # what the result row says: hub id with revision, or the path
    tokenizer: Path
    npz: tuple[Path, ...] = ()  # vision, text
    shards: tuple[Path, ...] = ()
    config: Path | None = None

    @property
    def weights(self) -> tuple[Path, ...]:
        return self.npz or self.shards


def find(spec: ModelSpec, tokenizer: bool = True) -> Source:
    """The files of `spec`; without `tokenizer` that one may be missing.

    Raises WeightsError that says which file is missing, where to get it and where to put it.
    """
    if spec.weights is not None:
        path = Path(spec.weights).expanduser()
        if not path.exists():
            raise WeightsError(f"--weights {spec.weights}: no such file or folder. {get(spec)}")
        return in_folder(
            spec, path.parent if path.is_file() else path, str(path), path if path.is_file() else None, tokenizer
        )
    if spec.target:  # hf:REPO_OR_FOLDER
        there = locate(spec)
        if any(path.suffix != ".safetensors" for path in there.files):
            raise WeightsError(f"{there.folder} has {there.files[0].name}, expected model.safetensors. {get(spec)}")
        return Source(
            there.weights.source,
            _tokenizer(spec, there.folder, tokenizer),
            shards=there.files,
            config=there.folder / "config.json",
        )
    if spec.row.get("embedded"):
        folder = embedded(spec.name)
        if not folder.is_dir():
            raise WeightsError(
                f"{spec.name}: no weights in {folder}. Install densebench again, or use --weights FOLDER"
            )
        return in_folder(spec, folder, f"embedded {spec.name}", tokenizer=tokenizer)
    if spec.row.get("hub"):
        folder = download(spec.row["hub"], spec.row["revision"], spec)
        return in_folder(spec, folder, f"{spec.row['hub']}@{spec.row['revision']}", tokenizer=tokenizer)
    raise WeightsError(f"{spec.name} is not on the hub. {get(spec)}")


def embedded(name: str) -> Path:
    """The folder of the weights that come with densebench."""
    return Path(str(files("adapters") / "weights" / name))


def in_folder(spec: ModelSpec, folder: Path, name: str, file: Path | None = None, tokenizer: bool = True) -> Source:
    """The model's files in `folder`; `file`, an .npz or a .safetensors file, is the one that the user named."""
    config = folder / "config.json"
    found = config if config.is_file() else None
    if file is not None and file.suffix == ".safetensors":
        local_place(file, spec.name)  # refuses one shard of several, and a file without sizes
        return Source(name, _tokenizer(spec, folder, tokenizer), shards=(file,), config=found)
    if file is not None and file.suffix != ".npz":
        line = pickle_line(file) if file.suffix in PICKLED else f"{file} is neither .safetensors nor .npz. {get(spec)}"
        raise WeightsError(f"{spec.name}: {line}")
    pair = _pair(spec, folder, file)
    if pair:
        return Source(name, _tokenizer(spec, folder, tokenizer), npz=pair, config=found)
    shards = safetensors_shards(folder)
    if shards:
        if found is None:
            raise WeightsError(f"{folder} has {shards[0].name} but no config.json beside it. {get(spec)}")
        return Source(name, _tokenizer(spec, folder, tokenizer), shards=tuple(shards), config=found)
    pickled = sorted(path for path in folder.iterdir() if path.suffix in PICKLED)
    remedy = pickle_line(pickled[0]) if pickled else get(spec)
    raise WeightsError(f"{folder} holds no weights of {spec.name}. {remedy}")


def get(spec: ModelSpec) -> str:
    """The remedy line: the files' names and addresses."""
    stems = stems_of(spec)
    if not stems:
        return f"A folder holds config.json, model.safetensors, {TOKENIZER}: --weights FOLDER"
    row = spec.row
    layout = "scenic" if spec.backend == "jax" else "pytorch"
    address = f"{OFFICIAL}/{row['version']}/checkpoints/{layout}/"
    stem = stems[-1] if layout == "scenic" else stems[0]
    return (
        f"Get {stem}_vision.npz and {stem}_text.npz from {address} and {OFFICIAL}/v1_0/checkpoints/{TOKENIZER}, "
        f"put the three in one folder: --weights FOLDER"
    )


def stems_of(spec: ModelSpec) -> list[str]:
    """Official file names less `_vision.npz`, PyTorch's before scenic's."""
    npz = spec.row.get("npz", {})
    return list(dict.fromkeys([*npz.get("torch", []), *npz.get("scenic", [])]))


def owner_of(stem: str) -> str | None:
    """The registered model whose official files are called `stem`."""
    return next(
        (name for name, row in models().items() if any(stem in stems for stems in row.get("npz", {}).values())), None
    )


def _pair(spec: ModelSpec, folder: Path, file: Path | None) -> tuple[Path, Path] | None:
    present = sorted(p.name.removesuffix("_vision.npz") for p in folder.glob("*_vision.npz"))
    texts = sorted(p.name.removesuffix("_text.npz") for p in folder.glob("*_text.npz"))
    if file is not None and file.suffix == ".npz":
        present = texts = [file.stem.removesuffix("_vision").removesuffix("_text")]
    known = stems_of(spec)
    if spec.backend == "jax":
        known.reverse()
    named = [stem for stem in known if stem in present or stem in texts]
    if not named and not present and not texts:
        return None
    if not named and len(set(present) | set(texts)) > 1:
        raise UsageError(f"{folder} has {', '.join(present)}: say which with --weights FOLDER/NAME_vision.npz")
    stem = named[0] if named else (present or texts)[0]
    owner = owner_of(stem)
    if owner and not named and owner != spec.name:
        raise WeightsError(f"{folder / stem}_vision.npz holds weights of {owner}, not of {spec.name}: --model {owner}")
    pair = folder / f"{stem}_vision.npz", folder / f"{stem}_text.npz"
    for path in pair:
        if not path.is_file():
            raise WeightsError(f"{path} is missing: image and text weights come as a pair. {get(spec)}")
    return pair


def _tokenizer(spec: ModelSpec, folder: Path, needed: bool) -> Path:
    path = folder / TOKENIZER
    if needed and not path.is_file():
        address = f"{OFFICIAL}/v1_0/checkpoints/{TOKENIZER}"
        raise WeightsError(f"{spec.name}: no {TOKENIZER} in {folder}. Get {address} and put it there")
    return path
