"""From the checked fields of a TOML task to data sets, one function per kind."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np

from benchmark.contracts import IGNORE
from benchmark.errors import DataError
from tasks.datasets.idx import IdxStore, read_idx
from tasks.datasets.kinds import IGNORED, INVALID, CaptionSet, LabelSet, MapSet, Relabel, RetrievalSet, SegmentationSet
from tasks.datasets.prompts import prompt_list
from tasks.datasets.user_fields import TaskFile
from tasks.datasets.user_maps import DepthReader, read_mask, read_normals
from tasks.datasets.user_source import IMAGES, Source, stem, table_rows, text_lines

TEMPLATES = ("tcl_9", "openai_imagenet_80")


def read_split(file: TaskFile, split: str) -> Any:
    """The `<Kind>Data` of `split`. Raises UsageError for the file's mistakes, DataError for the data's."""
    source = Source(file, split)
    if file.kind == "segmentation":
        images, masks = source.pairs("masks")
        names = class_names(file)
        return SegmentationSet(
            images,
            masks,
            names,
            _relabel(file, len(names)),
            read_mask,
            _background(file, names),
            prompt_templates(file),
        )
    if file.kind == "depth":
        images, maps = source.pairs("depth")
        scale = float(file.values.get("depth_scale", 0.0))
        limit = float(file.values.get("max_depth", 0.0))
        return MapSet(images, maps, DepthReader(scale), f"user-depth {scale}", limit)
    if file.kind == "normals":
        images, maps = source.pairs("normals")
        return MapSet(images, maps, read_normals, "user-normals")
    if file.kind == "captions":
        return _captions(source)
    if file.kind == "labels":
        return _labels(source)
    return _retrieval(source)


def class_names(file: TaskFile) -> tuple[str, ...]:
    """`classes`: a list, or a text file with one name per line."""
    value = file.values["classes"]
    if isinstance(value, str):
        if not file.place(value).is_file():
            raise file.wrong(f"classes = {value!r}: no such file ({file.place(value)})", "classes")
        value = [line for line in text_lines(file.place(value)) if line.strip()]
    if len(value) < 2 or not all(isinstance(n, str) and n for n in value):
        raise file.wrong(f"classes must be two or more names, not {value!r}", "classes")
    return tuple(value)


def prompt_templates(file: TaskFile) -> tuple[str, ...]:
    """The data's own prompts: a list, the name of one of ours (tcl_9, openai_imagenet_80), or a text file."""
    value = file.values.get("templates", ())
    if isinstance(value, str):
        if value in TEMPLATES:
            value = list(prompt_list(value))
        elif file.place(value).is_file():
            value = [t for t in text_lines(file.place(value)) if t.strip()]
        else:
            raise file.wrong(f"templates = {value!r}: no file, and none of {', '.join(TEMPLATES)}", "templates")
    for template in value:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise file.wrong(f"template {template!r} must hold {{}} once, where the class name goes", "templates")
    return tuple(str(template) for template in value)


def _background(file: TaskFile, names: tuple[str, ...]) -> int | None:
    name = file.values.get("background")
    if name is not None and name not in names:
        raise file.wrong(f"background = {name!r} is not one of the classes", "background")
    return None if name is None else names.index(name)


def _relabel(file: TaskFile, classes: int) -> Relabel:
    shift = 1 if file.values.get("reduce_zero_label") else 0
    value = file.values.get("ignore", IGNORE)
    ignored = set(value if isinstance(value, list) else [value])
    if not all(isinstance(i, int) and 0 <= i <= 65535 for i in ignored):
        raise file.wrong(f"ignore = {value!r} must be raw mask values from 0 to 65535", "ignore")
    if "ignore" not in file.values and classes + shift > IGNORE:
        ignored = set()  # 255 is a class here unless the file says otherwise
    size = max(classes + shift, 256, *(i + 1 for i in ignored)) if ignored else max(classes + shift, 256)
    table = [i - shift if shift <= i < classes + shift else INVALID for i in range(size)]
    for i in (*ignored, *range(shift)):
        table[i] = IGNORED
    return Relabel(tuple(table))


def _captions(source: Source) -> CaptionSet:
    path = source.file.place(source.fields["captions"])
    found: dict[str, list[str]] = {}
    if path.is_dir():
        for name in source.names:
            text = path / f"{stem(name)}.txt"
            if text.is_file():
                found[name] = [line.strip() for line in text_lines(text) if line.strip()]
    else:
        for where, row in table_rows(source, "captions", ("image",)):
            texts = row.get("captions") or [row.get("caption")]
            if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
                raise DataError(f"{where}: caption {texts!r} is empty or no text")
            found.setdefault(source.find(str(row["image"]), where), []).extend(texts)
    source.covered(found, "captions", "caption for")
    return CaptionSet(source.images, tuple(tuple(found[n]) for n in source.names))


def _labels(source: Source) -> LabelSet:
    if isinstance(source.store, IdxStore):
        return _idx_labels(source)
    rows = _label_rows(source, "labels") if "labels" in source.fields else _by_folder(source)
    words = [word for _, word, _ in rows]
    names = class_names(source.file) if "classes" in source.file.values else tuple(_all_words(source))
    known = {n: i for i, n in enumerate(names)}
    for (where, _, _), word in zip(rows, words):
        if word not in known:
            raise DataError(f"{where}: label {word!r} is not one of the {len(names)} classes. Correct one of the two")
    labels = np.array([known[w] for w in words], dtype=np.int64)
    return LabelSet(source.images, labels, names, prompt_templates(source.file))


def _idx_labels(source: Source) -> LabelSet:
    """MNIST's pair of files: labels lie at their pictures' positions."""
    if "labels" not in source.fields or "classes" not in source.file.values:
        raise source.file.wrong("idx pictures need labels = …-labels-idx1-ubyte and classes", *source.keys("images"))
    path = source.file.place(source.fields["labels"])
    if not path.is_file():
        raise source.file.wrong(f"labels = {source.fields['labels']!r}: no such file ({path})", *source.keys("labels"))
    labels = read_idx(str(path))
    if labels.shape != (len(source.store.names()),):
        raise DataError(f"{path}: holds {list(labels.shape)} labels for {len(source.store.names())} pictures")
    rows = np.array([int(n) for n in source.names])
    return LabelSet(
        source.images, labels[rows].astype(np.int64), class_names(source.file), prompt_templates(source.file)
    )


def _all_words(source: Source) -> list[str]:
    """Class names when none are given: those of all splits together, sorted, so that splits agree."""
    splits = [source.split] if source.one_folder else [s for s in ("train", "test") if s in source.file.values]
    words: set[str] = set()
    for split in splits:
        other = source if split == source.split else Source(source.file, split)
        if "labels" in other.fields:
            words |= {str(row["label"]) for _, row in table_rows(other, "labels", ("image", "label"))}
        else:
            words |= {PurePosixPath(n).parts[0] for n in other.store.names("", IMAGES)}
    return sorted(words)


def _by_folder(source: Source) -> list[tuple[str, str, str]]:
    for name in source.names:
        if len(PurePosixPath(name).parts) < 2:
            raise DataError(f"{source.store.where(name)}: lies in no class folder. Use <class>/<picture> or labels")
    return [(source.store.where(n), PurePosixPath(n).parts[0], "") for n in source.names]


def _label_rows(source: Source, key: str) -> list[tuple[str, str, str]]:
    """(where, label, domain) of each picture of `source`, from the table `key`."""
    found: dict[str, tuple[str, str, str]] = {}
    for where, row in table_rows(source, key, ("image", "label")):
        name = source.find(str(row["image"]), where)
        found[name] = (where, str(row["label"]), str(row.get("domain") or source.file.values["name"]))
    source.covered(found, key, "label for")
    return [found[n] for n in source.names]


def _retrieval(source: Source) -> RetrievalSet:
    rows = _label_rows(source, "labels")
    numbers: dict[str, int] = {}
    labels = np.array([numbers.setdefault(word, len(numbers)) for _, word, _ in rows], dtype=np.int64)
    domains = tuple(domain for _, _, domain in rows)
    if "queries" not in source.fields:
        return RetrievalSet(source.images, source.images, labels, labels, domains, domains, np.arange(len(labels)))
    if "query_labels" not in source.fields:
        raise source.file.wrong("queries needs query_labels, a table of image,label", *source.keys("queries"))
    queries = Source(source.file, source.split, "queries")
    asked_rows = _label_rows(queries, "query_labels")
    asked = np.array([numbers.setdefault(word, len(numbers)) for _, word, _ in asked_rows], dtype=np.int64)
    return RetrievalSet(queries.images, source.images, asked, labels, tuple(d for _, _, d in asked_rows), domains)
