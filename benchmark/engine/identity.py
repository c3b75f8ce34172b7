"""What a model is called in rows, and what must be the same for a finished row to be its own."""

from __future__ import annotations

from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmark.contracts import Encoder, identity
from benchmark.engine.loading import INSTALLED
from benchmark.engine.options import RunOptions
from benchmark.errors import BenchError, UsageError
from benchmark.registry import check_model_name, code_versions_of, is_own_code, models
from benchmark.rows.row import VARIANTS, read_row, slug
from benchmark.system.digest import fingerprint
from benchmark.system.weight_folders import read_with


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
        name = f"hf:{place_of_weights(folder)}"
    return name if weights is None else f"{name}@{place_of_weights(weights)}"


RESERVED = ("published", VARIANTS, "watch")  # words of bench compare, and folders beside those of models


def named(name: str, options: RunOptions) -> str:
    """What rows call the model: --name, else its display name.

    Raises UsageError where --name is that of another model: its rows would be taken for that one's.
    """
    own = display_name(name, options.weights)
    if options.name is None or options.name == own:
        return own
    if options.name in RESERVED or Path(options.name).suffix in (".csv", ".md", ".html", ".json"):
        raise UsageError(f"--name {options.name}: stands for something else beside rows. Give another")
    if options.name in models():
        raise UsageError(f"--name {options.name}: bench ls models has a model of this name. Give another")
    for file in (options.results / options.name).glob("*/*/*/result.json"):
        there = own  # of a damaged row: it is made again
        with suppress(BenchError):
            row = read_row(file)
            there = row.data.model.asked or row.model
        if there != own:
            raise UsageError(
                f"--name {options.name}: {options.results / options.name} holds rows of {there}. Give another name, "
                "or another --results"
            )
    return options.name


def place_of_weights(path: str) -> str:
    """What stands behind `@` in the display name of a model with a checkpoint at `path`."""
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


# What a model's table says for readers: other words are no other model. A row keeps those that stood there.
WORDS = ("golden_tokens", "gated", "licence", "no_text", "note", "params", "revision_status", "title")


def model_stamp(name: str, weights: str | None, encoder: Encoder | None = None) -> str:
    """A digest that changes when the model behind a name may have changed.

    For a registered model it costs a few `stat` calls and loads nothing: the adapter's code version is data. Code of
    the user's own may read any file, so that only the loaded `encoder` can tell: what decides its outputs is in the
    digest where it is given.
    """
    check_model_name(name)
    row = {k: v for k, v in models().get(name, {}).items() if k not in ("entry_point", *WORDS)}
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
        stamp["encoder"] = identity(encoder.card)
    return fingerprint(stamp)


def _stat(path: Path, name: str) -> str:
    s = path.stat()
    return f"{name}:{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}"  # cp -p keeps the second, nothing keeps the third
