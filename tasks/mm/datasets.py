"""Any mmsegmentation dataset config as a task: `bench run --task mmseg:path/to/config.py`.

Such a config is a Python file and reading it runs it, `_base_` files and `custom_imports` included: use configs you
trust (YAML and JSON are refused). Taken from it: the datasets of `train_dataloader` and `test_dataloader` (or
`val_dataloader`, also where the test set has no masks; `train_dataset`, `data = dict(train=…)`), their files, classes,
palettes' class order, `reduce_zero_label` and label maps. Not taken: pipelines, samplers, evaluators; the task's
protocol says how pictures are cut and scored. As in mmsegmentation, a relative `data_root` starts at the working
directory.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.contracts import Dataset, DatasetInfo, ignored_label
from benchmark.errors import BenchError, DataError, UsageError, unknown
from tasks.datasets.archives import without_hidden
from tasks.datasets.arrays import index_image
from tasks.datasets.blobs import FileBlobs
from tasks.datasets.kinds import IGNORED, INVALID, Pictures, Relabel, SegmentationSet
from tasks.datasets.names import Names
from tasks.datasets.places import split_error
from tasks.mm.library import DATASETS, Config, DefaultScope

WHERE = {
    "train": (("train_dataloader", "dataset"), ("train_dataset",), ("data", "train")),
    "test": (
        ("test_dataloader", "dataset"), ("val_dataloader", "dataset"), ("test_dataset",), ("val_dataset",),
        ("data", "test"), ("data", "val"),
    ),
}  # fmt: skip
JOINED = ("ConcatDataset",)
WRAPPED = ("RepeatDataset", "ClassBalancedDataset", "MultiImageMixDataset")


@dataclass(frozen=True)
class MmsegDataset(Dataset):
    """The segmentation data of a config; files are looked up when a split is asked for."""

    info: DatasetInfo
    config: Mapping[str, Any]

    def data(self, kind: str, split: str) -> SegmentationSet:
        if kind != "segmentation" or split not in WHERE:
            raise split_error(self.info, kind, split)
        found = _lookup(self.config, split, masked=True) or _lookup(self.config, split)
        if found is None:
            names = ", ".join(".".join(path) for path in WHERE[split][:3])
            raise UsageError(f"{self.info.layout}: has no {split} dataset. Define one of {names}")
        return _joined([_build(leaf, self.info.layout) for leaf in _leaves(found)], self.info.layout)


@dataclass(frozen=True)
class Part:
    """One built dataset: files, classes, and raw label -> class."""

    pictures: list[str]
    masks: list[str]
    classes: tuple[str, ...]
    relabel: Relabel


def open_config(path: str) -> MmsegDataset:
    """The dataset of the config at `path`. Raises UsageError when it is missing, cannot be run or has no dataset."""
    if not Path(path).is_file():
        raise UsageError(f"--task mmseg:{path}: no such file. Give the path of an mmsegmentation dataset config")
    if Path(path).suffix != ".py":
        raise UsageError(f"--task mmseg:{path}: only a Python config is read (it is run). Write it as a .py file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = Config.fromfile(path).to_dict()
    except Exception as e:  # the file is a program: it can fail in any way
        raise UsageError(f"{path}: cannot be run as a config ({type(e).__name__}: {_first(e)}). Correct it") from None
    if not any(_lookup(config, split) for split in WHERE):
        raise UsageError(f"{path}: defines no dataset. Define train_dataloader and test_dataloader with a dataset each")
    info = DatasetInfo(
        name=Path(path).stem, title=f"mmsegmentation config {Path(path).name}", licence="the dataset owner's",
        citation="", url="", layout=path, kinds=("segmentation",),
    )  # fmt: skip
    return MmsegDataset(info, config)


def _lookup(config: Mapping[str, Any], split: str, masked: bool = False) -> Mapping[str, Any] | None:
    """The first dataset of `split`; with `masked`, the first that names masks: the test set of a challenge has none,
    and what can be scored is its validation set."""
    for path in WHERE[split]:
        value: Any = config
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and "type" in value and (not masked or _names_masks(value)):
            return value
    return None


def _names_masks(config: Mapping[str, Any]) -> bool:
    """Whether every dataset in it has a folder of masks; one without `data_prefix` has its class's."""
    prefixes = [leaf.get("data_prefix") for leaf in _leaves(config)]
    return all(prefix is None or prefix.get("seg_map_path") is not None for prefix in prefixes)


def _leaves(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The datasets inside wrappers. Repeating and balancing are the training sampler's business: they are dropped."""
    name = _type_name(config)
    if name in JOINED:
        for part in config["datasets"]:
            yield from _leaves(part)
    elif name in WRAPPED:
        yield from _leaves(config["dataset"])
    else:
        yield config


def _type_name(config: Mapping[str, Any]) -> str:
    kind = config["type"]
    return str(kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]


def _build(config: Mapping[str, Any], where: str) -> Part:
    """The files of one dataset. Raises UsageError for a wrong type or field, DataError for missing files."""
    name, kind = _type_name(config), config["type"]
    if isinstance(kind, str) and DATASETS.get(kind) is None:
        raise unknown(f"dataset type in {where}", kind, DATASETS.module_dict, "mmseg.datasets, or custom_imports")
    if config.get("backend_args"):
        raise UsageError(f"{where}: {name} reads through backend_args; only files on this machine can be read")
    _check_folders(config, where)
    try:
        with DefaultScope.overwrite_default_scope("mmseg"):
            built = DATASETS.build({**config, "pipeline": [], "lazy_init": False, "serialize_data": False})
    except BenchError:
        raise
    except (AssertionError, OSError) as e:
        raise DataError(f"{where}: {name} finds its files not ({_first(e)}). Check data_root and ann_file") from None
    except Exception as e:
        raise UsageError(f"{where}: {name} cannot be built ({type(e).__name__}: {_first(e)}). Correct it") from None
    classes = tuple(built.metainfo.get("classes") or ())
    if not classes:
        raise UsageError(f"{where}: {name} has no classes. Add metainfo=dict(classes=(…))")
    items = _shown([built.get_data_info(i) for i in range(len(built))], built.data_prefix.get("img_path") or "")
    if not items:
        raise DataError(
            f"{where}: {name} has no picture under {config.get('data_root') or os.curdir}. Check img_suffix"
        )
    if "img_path2" in items[0]:
        raise UsageError(f"{where}: {name} compares two pictures of a place; a task here has one picture with its mask")
    pictures, masks = [i["img_path"] for i in items], [i.get("seg_map_path") for i in items]
    if None in masks:
        raise DataError(f"{where}: {name} has no masks to score. Give its data_prefix a seg_map_path")
    for file in [*pictures, *masks]:
        if not os.path.isfile(file):
            raise DataError(f"{where}: {name} names {file}, which is not there. Check data_root and data_prefix")
    return Part(pictures, masks, classes, _relabel(built, len(classes)))


def _shown(items: list[Any], folder: str) -> list[Any]:
    """`items` without those of hidden names below `folder`, which are counted: mmsegmentation lists them too."""
    names = [os.path.relpath(item["img_path"], folder or os.curdir).replace(os.sep, "/") for item in items]
    kept = set(without_hidden(names, folder.rstrip("/")))
    return [item for item, name in zip(items, names) if name in kept]


def _check_folders(config: Mapping[str, Any], where: str) -> None:
    root = str(config.get("data_root") or "")
    prefixes = config.get("data_prefix") or {}
    for folder in [root, *(os.path.join(root, str(p)) for p in prefixes.values() if p is not None)]:
        if folder and not os.path.isdir(folder):
            raise DataError(
                f"{where}: no folder {folder} (from {os.getcwd()}). Correct data_root, or run where it starts"
            )


def _relabel(built: Any, classes: int) -> Relabel:
    """mmsegmentation's LoadAnnotations as a table: reduce_zero_label first, then the map to a subset of classes.

    It has 8 bits, so 255 is left out; a set of more than 255 classes needs 16, where 255 is a class. `ignore_index` is
    a field that a dataset only stores: it drops no class (but a label that is none can be nothing else).
    """
    named = built.METAINFO.get("classes") or ()
    kept = set(built.metainfo["classes"])
    moves = {old: new if named[old] in kept else IGNORED for old, new in (built.label_map or {}).items()}
    shift = 1 if built.reduce_zero_label else 0
    ignored = ignored_label(max(classes, len(named)))
    table = []
    for raw in range(max(256, classes + shift, len(named) + shift, min(built.ignore_index, 65535) + 1)):
        label = raw - shift if raw != ignored else IGNORED
        label = moves.get(label, label) if label >= 0 else IGNORED
        beyond = not IGNORED <= label < classes
        table.append((IGNORED if raw == built.ignore_index else INVALID) if beyond else label)
    return Relabel(tuple(table))


def _joined(parts: list[Part], where: str) -> SegmentationSet:
    first = parts[0]
    if any((p.classes, p.relabel) != (first.classes, first.relabel) for p in parts):
        raise UsageError(f"{where}: the joined datasets differ in classes or labels. Give them the same")
    pictures, masks = [f for p in parts for f in p.pictures], [f for p in parts for f in p.masks]
    background = first.classes.index("background") if "background" in first.classes else None
    return SegmentationSet(
        Pictures(_blobs(pictures)), _blobs(masks), first.classes, first.relabel, index_image, background
    )


def _blobs(files: list[str]) -> FileBlobs:
    """Files named from the folder they share."""
    paths = [os.path.abspath(f) for f in files]
    root = os.path.dirname(paths[0]) if len(paths) == 1 else os.path.commonpath(paths)
    root = os.path.dirname(root) if root in paths else root
    return FileBlobs(root, Names(os.path.relpath(p, root).replace(os.sep, "/") for p in paths))


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or ["no message"])[0].rstrip(".")
