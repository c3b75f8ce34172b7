"""Test pictures that are training pictures too: a probe has seen their answers.

In people's own data they are told by their pixels and refused. Official splits are scored as they are published: there
they are told by the bytes of their files, without decoding, and named in the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.contracts import Samples
from benchmark.data.equal_pictures import picture_digests

Pairs = list[tuple[int, int]]  # (test picture, the first training picture that is the same)


def same_pixels(train: Any, test: Any) -> Pairs:
    """Of two ImageSets the test pictures that are in the training set."""
    return _pairs(picture_digests(train), picture_digests(test))


def note_same_files(data: Mapping[str, Samples], decode: bool = False) -> list[str]:
    """A line for each set of test pictures of a trained task whose files are among its training files; none where
    nothing is trained. Sets that are not made of files are compared by their pixels, if `decode`, or not at all."""
    if not {"train", "test"} <= data.keys():
        return []
    lines, trained = [], data["train"].pictures()
    for name, test in data["test"].pictures().items():
        if name not in trained:
            continue
        train = trained[name]
        if (ends := train.file_edges()) is None or (test_ends := test.file_edges()) is None:
            found = same_pixels(train, test) if decode else []
        else:
            found = [(t, r) for t, r in _pairs(ends, test_ends) if test.file_digest(t) == train.file_digest(r)]
        if found:
            count = f"{len(found)} of {len(test)} test pictures are training pictures too"
            lines.append(f"{count}: {named(train, test, found)}")
    return lines


def named(train: Any, test: Any, pairs: Pairs) -> str:
    """The first pair for people: `test/a.png = train/b.png`."""
    return f"{test.image_id(pairs[0][0])} (test) = {train.image_id(pairs[0][1])} (train)"


def _pairs(train: list[Any], test: list[Any]) -> Pairs:
    place = {digest: i for i, digest in reversed(list(enumerate(train)))}
    return [(i, place[digest]) for i, digest in enumerate(test) if digest in place]
