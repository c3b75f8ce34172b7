"""Names to things, lazily: the tables are TOML, the code behind a name is imported only when it is used.

Other packages plug in through the entry-point groups `densebench.adapters` (name -> builder), `densebench.tasks`
(name -> `benchmark.contracts.Task`) and `densebench.datasets` (name -> `benchmark.contracts.DatasetSource`). A task or
data set that cannot be loaded is named in a warning and left out.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
import tomllib
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, cast

from benchmark.contracts import Dataset, DatasetInfo, DatasetSource, Encoder, ModelSpec, Task
from benchmark.errors import EncoderError, UsageError, first_line, reading, staying, unknown
from benchmark.system.own_packages import NAMES, ours
from benchmark.system.torchvision_fit import misfit

T = TypeVar("T")
log = logging.getLogger("densebench")
PREFIXES = {
    "hf": "adapters.hub:build", "timm": "adapters.timm_models:build", "open_clip": "adapters.open_clip_models:build",
}  # fmt: skip


@cache
def _table(package: str, name: str) -> dict[str, dict[str, Any]]:
    ours(package.partition(".")[0])
    return tomllib.loads((files(package) / name).read_text(encoding="utf-8"))


_installed = cache(entry_points)  # asked for once: a scan of all that is installed takes over ten milliseconds
OURS = {
    "densebench.adapters": ("adapters", "models.toml"),
    "densebench.tasks": ("tasks", "tasks.toml"),
    "densebench.datasets": ("tasks.datasets", "catalog.toml"),
}


@cache
def _plug_ins(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, without those whose names are taken or could not be asked for."""
    found: dict[str, EntryPoint] = {}
    for point in _installed().select(group=group):
        said = f"{point.name} = {point.value} of group {group} is left out"
        if other := found.get(point.name):
            log.warning("%s: %s has this name", said, other.value)
        elif point.name in _table(*OURS[group]):
            log.warning("%s: densebench has one of this name. Give it another", said)
        elif not re.fullmatch(r"[A-Za-z0-9_][\w.+-]*", point.name) or point.name.endswith(".toml"):
            log.warning("%s: a name is made of letters, digits, and . + - _ inside. Give it another", said)
        else:
            found[point.name] = point
    return tuple(found.values())


@cache
def _loaded(group: str, kind: type[T]) -> dict[str, T]:
    """Name -> the object of each entry point of a group, without those that cannot be loaded."""
    found = {}
    for point in _plug_ins(group):
        try:
            with staying(), redirect_stdout(sys.stderr):  # what it prints is none of a table's rows
                value = point.load()
        except Exception as e:  # an import raises what it likes
            log.warning("%s = %s of group %s cannot be loaded: %s", point.name, point.value, group, first_line(e))
            continue
        if isinstance(value, kind):
            found[point.name] = value
        else:
            said = point.name, point.value, group, kind.__name__
            log.warning("%s = %s of group %s is no benchmark.contracts.%s", *said)
    return found


def resolve(target: str) -> Any:
    """The object of a `"module:attribute"` string, imported now."""
    module, _, attribute = target.partition(":")
    if (package := module.partition(".")[0]) in NAMES:
        ours(package)
    return getattr(importlib.import_module(module), attribute)


# ---------------------------------------------------------------------------------------------- models


def models() -> dict[str, dict[str, Any]]:
    """Every registered model -> its row; rows of other packages hold `entry_point`."""
    rows = dict(_table("adapters", "models.toml"))
    for point in _plug_ins("densebench.adapters"):
        rows[point.name] = {"family": "plug-in", "target": point.value, "entry_point": point}
    return rows


def code_versions() -> Mapping[str, str]:
    """Adapter module -> the version of its outputs, from adapters/code_versions.toml; imports no adapter."""
    return {f"adapters.{name}": str(version) for name, version in _table("adapters", "code_versions.toml").items()}


def code_versions_of(name: str) -> dict[str, str]:
    """Those of the adapters that may build model `name`: one, or for `hf:` all but timm's and open_clip's, as a
    checkpoint names its family.

    "1" is left out, and so is what has no adapter here (plug-ins, code of the user's own).
    """
    prefix = name.partition(":")[0]
    target = models()[name]["target"] if name in models() else PREFIXES.get(prefix, "")
    versions = code_versions()
    elsewhere = {builder.partition(":")[0] for key, builder in PREFIXES.items() if key != "hf"}
    builders = [m for m in versions if m not in elsewhere] if prefix == "hf" else [target.partition(":")[0]]
    return {module: versions[module] for module in builders if versions.get(module, "1") != "1"}


def code_of(encoder: Encoder) -> dict[str, str]:
    """The adapters whose classes `encoder` is of -> the version of their outputs, as its rows keep it; empty for what
    has no version here (plug-ins, code of the user's own)."""
    versions = code_versions()
    names = [f"{vars(kind).get('versioned_as', kind.__module__)}." for kind in type(encoder).__mro__]
    return {module: version for module, version in versions.items() if any(n.startswith(f"{module}.") for n in names)}


def build_encoder(spec: ModelSpec) -> Encoder:
    """The encoder of `spec.name`: a registered name, `hf:…`, `timm:…`, `open_clip:…`, `file.py:function`, or
    `module:function`. Raises UsageError where a torchvision of another torch is in the way."""
    try:
        return _built(spec)
    except Exception as error:
        if line := misfit(error):
            raise UsageError(line) from error
        raise


def _built(spec: ModelSpec) -> Encoder:
    rows = models()
    if spec.name in rows:
        row = rows[spec.name]
        point = cast("EntryPoint | None", row.get("entry_point"))
        if point is None:
            named = str(row.get("library", "")).partition(":")[2]  # "timm:NAME": what a library calls the model
            return cast(Encoder, resolve(row["target"])(_with(spec, row=row, target=named)))
        with reading(f"model {spec.name}", "its package cannot build it", "Ask the package's authors", EncoderError):
            return cast(Encoder, point.load()(_with(spec, row=row)))
    prefix, colon, target = spec.name.partition(":")
    if colon and prefix in PREFIXES:
        return cast(Encoder, resolve(PREFIXES[prefix])(_with(spec, target=target)))
    if colon and target:
        return cast(Encoder, resolve("adapters.custom:build")(_with(spec, target=spec.name)))
    raise unknown("model", spec.name, rows, "bench ls models")


def state_of(encoder: Encoder) -> str:
    """sha256 over the weights that an encoder object holds at this moment."""
    return str(resolve("adapters.custom:state_now")(encoder))


def check_model_name(name: str) -> None:
    """Raises UsageError for a name `build_encoder` could not resolve; imports nothing heavy."""
    if name in models() or (":" in name and all(name.partition(":")[::2])):
        return
    if name.endswith(".py"):
        raise UsageError(f"{name} is a file. Name the function in it that returns the encoder: {name}:FUNCTION")
    if name and Path(name).is_dir():
        raise UsageError(f"{name} is a folder: --model hf:{name}, or a name of bench ls models with --weights {name}")
    raise unknown("model", name, models(), "bench ls models")


def check_local(name: str) -> None:
    """Raises UsageError for `file.py:function` without that file and `hf:FOLDER` without that folder."""
    file, folder = name.rpartition(":")[0], name.removeprefix("hf:")
    if is_own_code(name) and file.endswith(".py") and not Path(file).is_file():
        raise UsageError(f"{name}: no file {file}. Write FILE.py:FUNCTION with a path from the current folder")
    is_path = folder.startswith((".", "/", "~")) or folder.count("/") > 1  # the hub has OWNER/NAME
    if name.startswith("hf:") and is_path and not Path(folder).is_dir():
        raise UsageError(f"{name}: no folder {folder}. Give its path from the current folder, or hf:OWNER/NAME")


def is_own_code(name: str) -> bool:
    """Whether `name` stands for code of the user's own: `file.py:function` or `module:function`."""
    return name not in models() and name.partition(":")[0] not in PREFIXES


def _with(spec: ModelSpec, **changes: Any) -> ModelSpec:
    return ModelSpec(**{**vars(spec), **changes})


# ----------------------------------------------------------------------------------------------- tasks


def tasks() -> dict[str, dict[str, Any]]:
    """The nine tasks, in the paper's order, and those of other packages."""
    rows = dict(_table("tasks", "tasks.toml"))
    for name, task in _loaded("densebench.tasks", Task).items():
        facts = {"kind": task.kind, "trained": task.trained, "metric": task.metric, "version": task.version}
        rows[name] = {"title": task.title or name, **facts, "plug_in": True}
    return rows


def load_task(name: str) -> Task:
    """The task called `name`. Raises UsageError with the closest names."""
    rows = tasks()
    if name not in rows:
        raise unknown("task", name, rows, "bench ls tasks")
    return (
        _loaded("densebench.tasks", Task)[name]
        if "plug_in" in rows[name]
        else cast(Task, resolve(rows[name]["target"]))
    )


def protocol_file(name: str) -> Traversable | Path:
    """The preset file of task `name`."""
    if "plug_in" not in tasks()[name]:
        return files("tasks") / "protocols" / f"{name}.toml"
    if (presets := load_task(name).presets) is None:
        raise UsageError(f"task {name} of another package names no file of presets. Give its Task `presets`")
    return Path(presets) if isinstance(presets, str) else presets


def suites() -> dict[str, dict[str, Any]]:
    """Suite name -> {title, units, protocol}."""
    return _table("tasks", "suites.toml")


# -------------------------------------------------------------------------------------------- datasets


def datasets() -> dict[str, dict[str, Any]]:
    """Every dataset -> its catalogue row; those of other packages have the facts of their DatasetInfo."""
    rows = dict(_table("tasks.datasets", "catalog.toml"))
    for name, source in _loaded("densebench.datasets", DatasetSource).items():
        facts = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(source.info).items()}
        parts = {key: list(value) for key in ("only", "short") if (value := getattr(source, key))}
        rows[name] = {**facts, **parts, "embedded": source.embedded, "plug_in": True}
    return rows


def tasks_on(dataset: str) -> list[str]:
    """The tasks that a dataset serves: those that read one of its kinds, or of these the ones it is `only` for."""
    row = datasets()[dataset]
    found = [name for name, task in tasks().items() if task["kind"] in row["kinds"]]
    return [name for name in found if name in row.get("only", found)]


def datasets_of(task: str) -> list[str]:
    """The datasets that the name of a task alone means."""
    return [name for name, row in datasets().items() if task in tasks_on(name) and not by_name_only(row)]


def by_name_only(row: Mapping[str, Any]) -> bool:
    """Whether a dataset is never meant by a task's name alone: a member of another set, or another ground truth."""
    return bool({"part_of", "variant_of"} & row.keys())


def dataset_info(name: str) -> DatasetInfo:
    """The catalogue's facts about `name`."""
    row = datasets()[name]
    names = DatasetInfo.__dataclass_fields__
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k in names}
    return DatasetInfo(name=name, **{k: v for k, v in known.items() if k != "name"})


def open_dataset(name: str, root: Path | None, options: Mapping[str, str] | None = None) -> Dataset:
    """The dataset `name` found under `root`. Raises DataError when it is not there."""
    rows, chosen = datasets(), dict(options or {})
    if name not in rows:
        raise unknown("dataset", name, rows, "bench ls datasets")
    if "plug_in" in rows[name]:
        source: DatasetSource = _loaded("densebench.datasets", DatasetSource)[name]
        with reading(f"data set {name}", "its package cannot open it", "Ask the package's authors"):
            if isinstance(found := source.open(root, chosen), Dataset):
                return found
            raise TypeError(f"open gives {type(found).__name__}, no benchmark.contracts.Dataset")
    return cast(Dataset, resolve(rows[name]["target"])(dataset_info(name), root, chosen))


# ----------------------------------------------------------------------------------------------- units


@dataclass(frozen=True)
class Unit:
    """One runnable thing, written `<task>/<dataset>`; `path` is set for a user's TOML file or an mmseg config."""

    task: str
    dataset: str
    path: str | None = None
    protocol: str | None = field(default=None, compare=False)  # what a suite of the user's own says of it
    limit: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.task}/{self.dataset}"


def units(word: str) -> list[Unit]:
    """What a `--task` word means: `task/dataset`, a dataset's best known probe, a task on all its datasets, a file.

    Raises UsageError with the closest names.
    """
    if word.startswith("mmseg:"):
        path = word.removeprefix("mmseg:")
        return [Unit("linear_segmentation", config_name(path), f"mmseg:{path}")]
    if word.endswith(".toml"):
        return [_user_unit(word)]
    rows, catalog = tasks(), datasets()
    if "/" in word:
        task, _, dataset = word.partition("/")
        if task not in rows:
            raise unknown("task", task, rows, "bench ls tasks")
        if dataset not in catalog:
            raise unknown("dataset", dataset, catalog, "bench ls datasets")
        if task not in (there := tasks_on(dataset)):
            raise UsageError(f"{dataset} has no {task}; it has {', '.join(there) or _served_by_none(dataset)}")
        return [Unit(task, dataset)]
    if word in catalog:
        if not (short := short_tasks(word)):
            raise UsageError(f"{word} has {_served_by_none(word)}")
        return [Unit(task, word) for task in short]
    if word in rows:
        if not (found := datasets_of(word)):
            raise UsageError(f"no data set here offers {rows[word]['kind']}, which {word} reads. See bench ls datasets")
        return [Unit(word, name) for name in found]
    raise unknown("task or dataset", word, [*rows, *catalog], "bench ls tasks, bench ls datasets")


def _served_by_none(dataset: str) -> str:
    kinds, only = (", ".join(datasets()[dataset].get(key, ())) for key in ("kinds", "only"))
    return f"{kinds}, which no task here reads{f', and it is only for {only}' * bool(only)}. See bench ls tasks"


def config_name(path: str) -> str:
    """What rows of the mmsegmentation config at `path` call their dataset: its file name, which often is that of one of
    our datasets; those rows keep their own folder."""
    stem = Path(path).stem
    return f"mmseg-{stem}" if stem.lower() in datasets() else stem


def short_tasks(dataset: str) -> list[str]:
    """The tasks a dataset's name alone stands for: its best known probe, or all it serves."""
    there = tasks_on(dataset)
    return [name for name in datasets()[dataset].get("short", ()) if name in there] or there


def _user_unit(word: str) -> Unit:
    if not Path(word).is_file():
        raise UsageError(f"--task {word}: no such file. Write one like examples/my_task/, or see bench ls tasks")
    task = resolve("tasks.datasets.user:open_task")(Path(word))
    return Unit(task.task, task.dataset.info.name, str(Path(word).resolve()))
