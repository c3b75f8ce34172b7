import numpy as np
from small import Noise, made

from benchmark.contracts import LabelData, RetrievalData


def labels(n=10):
    return made(LabelData, images=Noise(n), digest="d", labels=np.arange(n), class_names=["a"])


def test_limit_spreads_over_the_set_and_changes_the_digest():
    part = labels().limited(4)
    assert part.labels.tolist() == [0, 3, 6, 9] and len(part.images) == 4
    assert part.images.image_id(1) == "noise/0/3"
    assert np.array_equal(part.images.load(1), Noise(10).load(3))
    assert part.digest != "d" and part.images.digest != Noise(10).digest
    assert part.class_names == ["a"]


def test_limit_above_the_size_changes_nothing():
    data = labels()
    assert data.limited(10) is data


def retrieval():
    keys = np.repeat(np.arange(6), 4)
    names = ["x"] * 12 + ["y"] * 12
    return made(
        RetrievalData, queries=Noise(24), index=Noise(24), digest="d", query_labels=keys, index_labels=keys,
        query_domains=names, index_domains=names, self_index=np.arange(24),
    )  # fmt: skip


def test_limit_of_retrieval_keeps_whole_instances():
    part = retrieval().limited(8)
    assert len(part.queries) == 8
    assert {tuple(np.unique(part.query_labels, return_counts=True)[1])} == {(4, 4)}
    for query, place in enumerate(part.self_index):
        assert part.index.image_id(int(place)) == part.queries.image_id(query)


def test_bad_pictures_are_left_out_of_queries_and_index():
    part = retrieval().without({"noise/0/0", "noise/0/23"})
    assert len(part.queries) == len(part.index) == 22
    assert part.self_index.tolist() == list(range(22))
