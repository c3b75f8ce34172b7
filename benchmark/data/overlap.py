"""Test pictures that are training pictures too: a probe has seen their answers.

In people's own data they are told by their pixels and refused. Official splits are scored as they are published: there
they are told by the bytes of their files, without decoding, and named in the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.data.equal_pictures import picture_digests

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
    ends = train.file_edges(), test.file_edges()
    if ends[0] is None or ends[1] is None:
        return []
    found = [(t, r) for t, r in _pairs(ends[0], ends[1]) if test.file_digest(t) == train.file_digest(r)]
    if not found:
        return []
    return [f"{len(found)} of {len(test)} test pictures are training pictures too: {named(train, test, found)}"]


def named(train: Any, test: Any, pairs: Pairs) -> str:
    """The first pair for people: `test/a.png = train/b.png`."""
    return f"{test.image_id(pairs[0][0])} (test) = {train.image_id(pairs[0][1])} (train)"


def _pairs(train: list[Any], test: list[Any]) -> Pairs:
    place = {digest: i for i, digest in reversed(list(enumerate(train)))}
    return [(i, place[digest]) for i, digest in enumerate(test) if digest in place]
