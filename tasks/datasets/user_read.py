"""From the checked fields of a TOML task to data sets, one function per kind."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from benchmark.contracts import IGNORE
from benchmark.data.equal_pictures import picture_digests
from benchmark.data.tolerance import tolerance, tolerating
from benchmark.errors import DataError
from benchmark.system.plurals import number_of
from benchmark.system.texts import lines_of
from tasks.datasets.idx import IdxStore, read_idx
from tasks.datasets.kinds import (
    IGNORED,
    INVALID,
    CaptionSet,
    DepthSet,
    LabelSet,
    NormalsSet,
    Relabel,
    RetrievalSet,
    SegmentationSet,
)
from tasks.datasets.prompts import prompt_list
from tasks.datasets.user_fields import TaskFile
from tasks.datasets.user_maps import DepthReader, read_mask, read_normals
from tasks.datasets.user_pairs import read_pairs
from tasks.datasets.user_source import IMAGES, Source, composed, stem, table_rows

LARGEST_IN_TABLE = 65535  # of a 16-bit mask; larger and negative values are looked up one by one
TEMPLATES = ("tcl_9", "openai_imagenet_80")


def read_split(file: TaskFile, split: str) -> Any:
    """The `<Kind>Data` of `split`. Raises UsageError for the file's mistakes, DataError for the data's."""
    source = Source(file, split)
    _check_chosen(source)
    if file.kind == "segmentation":
        images, masks = source.pairs("masks")
        names = _distinct(file, class_names(file))
        note_alike("classes", names)
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
        return DepthSet(images, maps, DepthReader(scale), f"user-depth {scale}", limit)
    if file.kind == "normals":
        images, maps = source.pairs("normals")
        return NormalsSet(images, maps, read_normals, "user-normals")
    if file.kind == "captions":
        return _captions(source)
    if file.kind == "labels":
        return _labels(source)
    return read_pairs(source) if file.kind == "correspondence" else _retrieval(source)


def _check_chosen(source: Source) -> None:
    """Raises DataError for a picture that a list of `split` names twice, or that both lists name."""
    file, rule = source.file, source.file.values.get("split", {})
    if not source.one_folder or not isinstance(rule.get("test"), str):
        return
    twice = [name for name, count in Counter(source.names).items() if count > 1]
    if twice:
        raise DataError(f"{file.place(rule[source.split])}: names {twice[0]} twice: it would count double. Keep one")
    if source.split == "test" and "train" in rule and file.trained:
        both = set(source.names) & set(Source(file, "train").names)
        if both:
            raise DataError(
                f"{file.place(rule['test'])}: names {number_of(len(both), 'picture')} of {rule['train']} too, "
                f"{min(both)} among them: what was trained on cannot be scored. Name each picture in one list"
            )


def _distinct(file: TaskFile, names: tuple[str, ...]) -> tuple[str, ...]:
    """`names`. Raises UsageError for one that stands there twice: its two classes could not be told apart."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise file.wrong(f"classes names {twice[0]!r} twice. Every class needs a name of its own", "classes")
    return names


def word_of(value: Any) -> str:
    """A label or domain as it is compared: without spaces at its ends, ä one letter as in names of files."""
    return composed(str(value).strip())


def note_alike(what: str, names: Iterable[str]) -> None:
    """Notes names that differ in case, spaces, hyphens and underscores alone: two of what was perhaps meant as one."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold()), []).append(name)
    for same in alike.values():
        if len(same) > 1:
            tolerance().odd.append(f"{what} {', '.join(map(repr, same))} are alike, and are {len(same)} {what}")


def class_names(file: TaskFile) -> tuple[str, ...]:
    """`classes`: a list, or a text file with one name per line."""
    value = file.values["classes"]
    if isinstance(value, str):
        if not os.path.isfile(file.place(value)):
            raise file.wrong(f"classes = {value!r}: no such file ({file.place(value)})", "classes")
        value = lines_of(file.place(value))
    if len(value) < 2 or not all(isinstance(n, str) and n.strip() for n in value):
        raise file.wrong(f"classes must be two or more names, not {value!r}", "classes")
    return tuple(word_of(n) for n in value)


def prompt_templates(file: TaskFile) -> tuple[str, ...]:
    """The data's own prompts: a list, the name of one of ours (tcl_9, openai_imagenet_80), or a text file."""
    value = file.values.get("templates", ())
    if isinstance(value, str):
        if value in TEMPLATES:
            value = list(prompt_list(value))
        elif os.path.isfile(file.place(value)):
            value = lines_of(file.place(value))
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
    if not all(isinstance(i, int) and not isinstance(i, bool) and abs(i) < 2**32 for i in ignored):
        raise file.wrong(f"ignore = {value!r} must be raw mask values, whole numbers: [255], [-1]", "ignore")
    if "ignore" not in file.values and (classes + shift > IGNORE or classes == 2):
        # 255 is a class here unless the file says otherwise: beyond 255 of them, and in masks of black and white, all
        # of whose foreground would be left out
        ignored = set()
    far = tuple(sorted(i for i in ignored if not 0 <= i <= LARGEST_IN_TABLE))
    ignored -= set(far)
    size = max(classes + shift, 256, *(i + 1 for i in ignored)) if ignored else max(classes + shift, 256)
    table = [i - shift if shift <= i < classes + shift else INVALID for i in range(size)]
    for i in (*ignored, *range(shift)):
        table[i] = IGNORED
    return Relabel(tuple(table), far)


def _captions(source: Source) -> CaptionSet:
    path = source.file.place(source.fields["captions"])
    found: dict[str, list[str]] = {}
    if os.path.isdir(path):
        for name in source.names:
            text = path / f"{stem(name)}.txt"
            if os.path.isfile(text):
                found[name] = [line.strip() for line in lines_of(text)]
    else:
        for where, row in table_rows(source, "captions", ("image",)):
            texts = row.get("captions") or [row.get("caption")]
            if texts == [None]:
                raise DataError(f"{where}: has no caption. Give it one, a list as captions, or leave the picture out")
            if not isinstance(texts, list):
                raise DataError(f"{where}: captions {texts!r} is no list. Write a list of texts, or caption for one")
            if not all(isinstance(t, str) and t.strip() for t in texts):
                raise DataError(f"{where}: caption {texts!r} is empty or no text")
            found.setdefault(source.find(str(row["image"]), where), []).extend(t.strip() for t in texts)
    source.covered(found, "captions", "caption for")
    return CaptionSet(source.images, tuple(tuple(found[n]) for n in source.names))


def _labels(source: Source) -> LabelSet:
    if isinstance(source.store, IdxStore):
        return _idx_labels(source)
    rows = _label_rows(source, "labels") if "labels" in source.fields else _by_folder(source)
    words = [word for _, word, _ in rows]
    if "classes" in source.file.values:
        names = _distinct(source.file, class_names(source.file))
    else:
        names = tuple(_all_words(source))
    if len(names) < 2:
        raise DataError(f"{rows[0][0]}: every picture is of the class {names[0]!r}. Two classes or more are needed")
    note_alike("classes", names)
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
    if not os.path.isfile(path):
        raise source.file.wrong(f"labels = {source.fields['labels']!r}: no such file ({path})", *source.keys("labels"))
    labels = read_idx(str(path))
    if labels.shape != (len(source.store.names()),):
        raise DataError(
            f"{path}: holds {list(labels.shape)} labels for {number_of(len(source.store.names()), 'picture')}"
        )
    rows = np.array([int(n) for n in source.names])
    return LabelSet(
        source.images, labels[rows].astype(np.int64), class_names(source.file), prompt_templates(source.file)
    )


def _all_words(source: Source) -> list[str]:
    """Class names when none are given: those of all splits together, sorted, so that splits agree."""
    splits = [source.split] if source.one_folder else [s for s in ("train", "test") if s in source.file.values]
    words: set[str] = set()
    with tolerating():  # what the other split leaves out is not this one's
        for split in splits:
            other = source if split == source.split else Source(source.file, split)
            if "labels" in other.fields:
                words |= {word_of(row["label"]) for _, row in table_rows(other, "labels", ("image", "label"))}
            else:
                words |= {word_of(PurePosixPath(n).parts[0]) for n in other.store.names("", IMAGES)}
    return sorted(words)


def _by_folder(source: Source) -> list[tuple[str, str, str]]:
    for name in source.names:
        if len(PurePosixPath(name).parts) < 2:
            raise DataError(f"{source.store.where(name)}: lies in no class folder. Use <class>/<picture> or labels")
    return [(source.store.where(n), word_of(PurePosixPath(n).parts[0]), "") for n in source.names]


def _label_rows(source: Source, key: str) -> list[tuple[str, str, str]]:
    """(where, label, domain) of each picture of `source`, from the table `key`."""
    found: dict[str, tuple[str, str, str]] = {}
    for where, row in table_rows(source, key, ("image", "label")):
        name = source.find(str(row["image"]), where)
        said = word_of(row["label"]), word_of(row.get("domain") or "") or source.file.values["name"]
        if not said[0]:
            raise DataError(f"{where}: has no 'label'. Columns needed: image, label")
        first = found.setdefault(name, (where, *said))
        if first[1:] != said:
            raise DataError(f"{where}: {name} is {said[0]!r} here and {first[1]!r} in {first[0]}. Keep one of the two")
    source.covered(found, key, "label for")
    return [found[n] for n in source.names]


def _each_once(source: Source, rows: list[tuple[str, str, str]]) -> tuple[list[tuple[str, str, str]], list[bytes]]:
    """`rows` with the digests of their pictures; of equal pictures of one label and domain `source` keeps the first.

    Any encoder finds a copy of its query: as right answers equal pictures are one. Those of different labels are noted.
    """
    digests = picture_digests(source.images)
    first: dict[tuple[str, ...] | bytes, int] = {}
    once = [i for i, (_, *said) in enumerate(rows) if first.setdefault((*said, digests[i].hex()), i) == i]
    if len(once) < len(rows):
        tolerance().odd.append(
            f"{number_of(len(rows) - len(once), 'picture')} there more than once: each counts as one"
        )
    other = [(i, j) for i in once if (j := first.setdefault(digests[i], i)) != i]
    if other:
        names = " and ".join(source.names[i] for i in reversed(other[0]))
        tolerance().odd.append(f"{number_of(len(other), 'picture')} there with another label or domain too: {names}")
    source.names = [source.names[i] for i in once]
    return [rows[i] for i in once], [digests[i] for i in once]


def _retrieval(source: Source) -> RetrievalSet:
    rows, found = _each_once(source, _label_rows(source, "labels"))
    numbers: dict[str, int] = {}
    labels = np.array([numbers.setdefault(word, len(numbers)) for _, word, _ in rows], dtype=np.int64)
    note_alike("labels", numbers)
    domains = tuple(domain for _, _, domain in rows)
    note_alike("domains", dict.fromkeys(domains))
    if "queries" not in source.fields:  # a picture that is there with two labels is found by neither of its queries
        return RetrievalSet(source.images, source.images, labels, labels, domains, domains, np.arange(len(labels)))
    if "query_labels" not in source.fields:
        raise source.file.wrong("queries needs query_labels, a table of image,label", *source.keys("queries"))
    queries = Source(source.file, source.split, "queries")
    asked_rows, asked_found = _each_once(queries, _label_rows(queries, "query_labels"))
    asked = np.array([numbers.setdefault(word, len(numbers)) for _, word, _ in asked_rows], dtype=np.int64)
    indexed = {(word, domain) for _, word, domain in rows}
    for where, word, domain in asked_rows:
        if (word, domain) not in indexed:
            raise DataError(
                f"{where}: no picture of the index is {word!r} in {domain!r}: this query could find nothing"
            )
    there = {picture: at for at, picture in reversed(list(enumerate(found)))}
    own = np.array([there.get(picture, -1) for picture in asked_found], dtype=np.int64)
    asked_domains = tuple(d for _, _, d in asked_rows)
    itself = own if (own >= 0).any() else None  # a file of both folders, or a copy of it, never finds itself
    return RetrievalSet(queries.images, source.images, asked, labels, asked_domains, domains, itself)
