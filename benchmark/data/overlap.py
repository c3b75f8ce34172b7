"""Test pictures that are training pictures too: a probe has seen their answers.

In people's own data they are told by their pixels and refused. Official splits are scored as they are published: there
they are told by the bytes of their files, without decoding, and named in the row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from benchmark.contracts import ImageSet
from benchmark.data.equal_pictures import picture_digests
from benchmark.data.subsets import ImageSubset

Pairs = list[tuple[int, int]]  # (test picture, the first training picture that is the same)


def same_pixels(train: Any, test: Any) -> Pairs:
    """Of two ImageSets the test pictures that are in the training set."""
    return _pairs(picture_digests(train), picture_digests(test))


def note_same_files(data: Mapping[str, Any]) -> list[str]:
    """A line where test files of a trained task are training files too; none where nothing is trained, or where sets
    are not made of files."""
    if not {"train", "test"} <= data.keys():
        return []
    train, test = data["train"].images, data["test"].images
    edges = _edges(train), _edges(test)
    if edges[0] is None or edges[1] is None:
        return []
    found = [(t, r) for t, r in _pairs(edges[0], edges[1]) if _whole(test, t) == _whole(train, r)]
    if not found:
        return []
    return [f"{len(found)} of {len(test)} test pictures are training pictures too: {named(train, test, found)}"]


def named(train: Any, test: Any, pairs: Pairs) -> str:
    """The first pair for people: `test/a.png = train/b.png`."""
    return f"{test.image_id(pairs[0][0])} (test) = {train.image_id(pairs[0][1])} (train)"


def _pairs(train: list[Any], test: list[Any]) -> Pairs:
    place = {digest: i for i, digest in reversed(list(enumerate(train)))}
    return [(i, place[digest]) for i, digest in enumerate(test) if digest in place]


def _edges(images: ImageSet) -> list[str] | None:
    """[N] what tells files apart at the cost of reading their ends; None for a set that has no files."""
    if isinstance(images, ImageSubset):
        base = _edges(images.base)
        return None if base is None else [base[row] for row in images.rows]
    ends = getattr(images, "file_edges", None)
    return ends() if ends else None


def _whole(images: Any, index: int) -> str:
    while isinstance(images, ImageSubset):
        images, index = images.base, images.rows[index]
    return hashlib.sha256(images.file_bytes(index)).hexdigest()
