"""Retrieval ranks and average precision against a brute-force loop, and the tie rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.errors import DataError, EncoderError
from benchmark.metrics import exact_products, retrieval
from benchmark.metrics.classification import label_ranks
from benchmark.metrics.positives import Positives, caption_positives, instance_positives
from benchmark.metrics.retrieval import average_precision, mutual_ranks, ranks, recall_hits, top_precision


def brute_force(q: np.ndarray, g: np.ndarray, lists: list[list[int]], exclude: np.ndarray) -> tuple:
    found, precision = [], []
    for row, positives, own in zip(q.astype(float) @ g.astype(float).T, lists, exclude):
        negative = np.ones(len(g), bool)
        negative[[*positives, *([own] if own >= 0 else [])]] = False
        if not positives:
            found.append(len(g)), precision.append(np.nan)
            continue
        best = np.sort(row[positives])[::-1]
        ahead = [(row[negative] >= s - 1e-11).sum() for s in best]
        found.append(ahead[0])
        precision.append(np.mean([(i + 1) / (i + 1 + n) for i, n in enumerate(ahead)]))
    return np.array(found), np.array(precision)


@pytest.mark.parametrize("kind", ["random", "integer", "duplicates"])
@pytest.mark.parametrize("block", [7, 64, 2048])
def test_ranks_and_average_precision_equal_a_loop_for_any_block(kind: str, block: int) -> None:
    rng = np.random.default_rng(3)
    q, g = rng.normal(size=(60, 8)).astype(np.float32), rng.normal(size=(200, 8)).astype(np.float32)
    if kind == "integer":
        q, g = np.round(q), np.round(g)
    if kind == "duplicates":
        g[50:100], g[100:150] = g[:50], g[0]
    lists = [rng.choice(200, rng.integers(0, 9), replace=False).tolist() for _ in q]
    exclude = np.array([-1 if e in p else e for e, p in zip(rng.integers(-1, 200, 60), lists)])
    expected_ranks, expected_ap = brute_force(q, g, lists, exclude)
    positives = Positives.from_lists(lists)
    assert np.array_equal(ranks(q, g, positives, exclude, block), expected_ranks)
    np.testing.assert_allclose(average_precision(q, g, positives, exclude, block), expected_ap, atol=1e-12)


@pytest.mark.parametrize("block", [64, 2048])
def test_a_few_ties_in_a_large_gallery_count_as_many_do(block: int) -> None:
    """So few pairs are close that each is looked at by itself: copies of a positive, and what is a last digit off."""
    rng = np.random.default_rng(7)
    q, g = rng.normal(size=(50, 8)).astype(np.float32), rng.normal(size=(900, 8)).astype(np.float32)
    lists = [[i, 450 + i] if i % 3 else [i] for i in range(50)]
    g[800:820] = g[:20]
    g[820:840] = g[20:40] * np.float32(1 + 2.0**-23)
    none = np.full(50, -1)
    expected_ranks, expected_ap = brute_force(q, g, lists, none)
    positives = Positives.from_lists(lists)
    assert np.array_equal(ranks(q, g, positives, none, block), expected_ranks)
    np.testing.assert_allclose(average_precision(q, g, positives, none, block), expected_ap, atol=1e-12)
    back = Positives.from_lists([[i] if i < 50 else [] for i in range(900)])
    found = mutual_ranks(q, g, positives, back, block)
    assert np.array_equal(found[0], expected_ranks)
    assert np.array_equal(found[1], brute_force(g, q, [[i] if i < 50 else [] for i in range(900)], np.full(900, -1))[0])


def test_a_collapsed_encoder_does_not_pass_for_a_perfect_one() -> None:
    same = np.full((30, 16), 0.37, np.float32)
    to_text, to_image = caption_positives([1] * 30)
    assert recall_hits(ranks(same, same, to_text), 10).mean() == 0
    assert average_precision(same, same, to_image).max() < 0.05


def test_best_of_several_captions_counts_and_its_siblings_never_push_it_back() -> None:
    image = np.array([[1.0, 0.0]])
    texts = np.array([[0.9, 0.0], [0.8, 0.0], [0.85, 0.0], [0.1, 0.0]])
    assert ranks(image, texts, Positives.from_lists([[1, 0]])).tolist() == [0]
    assert ranks(image, texts, Positives.from_lists([[1]])).tolist() == [2]


def uneds_mmp(q: np.ndarray, g: np.ndarray, query: list, index: list, same: bool, k: int = 5) -> np.ndarray:
    """mMP@k of each query as Universal-Image-Embeddings' knn_utils.py (3768d3e) counts it, whose first neighbour is
    dropped where the queries are the index."""
    found = []
    for row, label in zip(q @ g.T, query):
        near = [index[j] for j in np.argsort(-row, kind="stable")[: k + same]]
        there = sum(i == label for i in index)
        hits = sum(label == near[j] for j in range(min(k + same, there))) - same
        found.append(hits / min(there - same, k))
    return np.array(found)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("block", [7, 2048])
def test_top_precision_is_uneds_where_the_query_is_its_own_first_neighbour(same: bool, block: int) -> None:
    rng = np.random.default_rng(5)
    index = [*rng.choice(12, 150, p=np.arange(1, 13) / 78).tolist(), 90, 90, 91, 91, 91]  # labels of 1 to 25 pictures
    centres = rng.normal(size=(92, 6))
    g = (centres[index] + rng.normal(size=(len(index), 6))).astype(np.float32)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    rows = [i for i, label in enumerate(index) if index.count(label) > 1] if same else list(range(0, len(index), 3))
    q = g[rows] if same else g[rows] + rng.normal(size=(len(rows), 6)).astype(np.float32)
    asked, own = [index[i] for i in rows], np.array(rows) if same else None
    positives = instance_positives(asked, index, own)
    found = top_precision(q, g, positives, own, block=block)
    np.testing.assert_allclose(found, uneds_mmp(q.astype(float), g.astype(float), asked, index, same))
    assert {0, 12, 24} < set(np.round(found * 60).astype(int)), "shares of five"


def test_top_precision_of_ties_and_of_a_query_without_positives() -> None:
    same = np.ones((6, 2), np.float32)
    positives = Positives.from_lists([[1, 2], [0, 1, 2, 3, 4, 5], []])
    found = top_precision(same[:3], same, positives, np.array([0, -1, 2]))
    assert found[:2].tolist() == [0.0, 1.0] and np.isnan(found[2])  # behind three that tie; there is nothing else


def test_caption_positives_point_both_ways() -> None:
    to_text, to_image = caption_positives([2, 1, 3])
    assert to_text.offsets.tolist() == [0, 2, 3, 6] and to_text.indices.tolist() == [0, 1, 2, 3, 4, 5]
    assert to_image.indices.tolist() == [0, 0, 1, 2, 2, 2]


def test_instance_positives_leave_the_query_out_and_need_the_domain() -> None:
    keys = ["cars/1", "cars/2", "food/1", "cars/1"]
    positives = instance_positives(keys, keys, np.arange(4))
    lists = [positives.indices[a:b].tolist() for a, b in zip(positives.offsets, positives.offsets[1:])]
    assert lists == [[3], [], [], [0]]


def test_instance_positives_of_a_query_with_several_labels() -> None:
    index = ["a/1", "a/2", "b/2", "a/3", "a/1"]
    positives = instance_positives(["a/1", "a/2", "a/1"], index, np.array([0, -1, -1]), {0: ["a/2", "a/9"], 2: []})
    lists = [positives.indices[a:b].tolist() for a, b in zip(positives.offsets, positives.offsets[1:])]
    assert lists == [[1, 4], [1], [0, 4]]


def test_bad_features_and_lists_are_refused() -> None:
    good, bad = np.ones((2, 3), np.float32), np.array([[1, 1, 1], [1, np.nan, 1]], np.float32)
    one_each = Positives.from_lists([[0], [1]])
    with pytest.raises(EncoderError, match="query feature 1 holds NaN"):
        ranks(bad, good, one_each)
    with pytest.raises(EncoderError, match="gallery feature 1 holds NaN"):
        ranks(good, bad, Positives.from_lists([[0], [0]]))
    with pytest.raises(DataError, match="outside the gallery"):
        ranks(good, good, Positives.from_lists([[0], [2]]))
    with pytest.raises(DataError, match="1 lists of positives for 2 queries"):
        ranks(good, good, Positives.from_lists([[0]]))


def test_classification_ties_count_against_the_model() -> None:
    import torch

    scores = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 3.0, 3.0]])
    assert label_ranks(scores, np.array([0, 1, 2])).tolist() == [1, 0, 2]
    with pytest.raises(EncoderError, match="sample 0 hold NaN"):
        label_ranks(torch.tensor([[float("nan"), 0.0]]), np.array([0]))
    with pytest.raises(DataError, match="label 3 is outside"):
        label_ranks(scores, np.array([0, 3, 1]))


@pytest.mark.parametrize("kind", ["random", "integer", "collapsed"])
@pytest.mark.parametrize("block", [7, 2048])
def test_both_directions_at_once_are_each_direction_by_itself(kind: str, block: int) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(50, 6)).astype(np.float32), rng.normal(size=(300, 6)).astype(np.float32)
    if kind == "integer":
        a, b = np.round(a), np.round(b)
    if kind == "collapsed":
        a[:], b[:] = 0.37, 0.37
    to_right = Positives.from_lists([rng.choice(300, n, replace=False).tolist() for n in rng.integers(0, 6, 50)])
    to_left = Positives.from_lists([rng.choice(50, n, replace=False).tolist() for n in rng.integers(0, 3, 300)])
    found = mutual_ranks(a, b, to_right, to_left, block)
    assert np.array_equal(found[0], ranks(a, b, to_right, block=block))
    assert np.array_equal(found[1], ranks(b, a, to_left, block=block))


def test_both_directions_name_a_vector_that_is_not_finite() -> None:
    good, bad = np.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
    bad[2] = np.nan
    own = Positives.from_lists([[0], [1], [2], [3]])
    for left, right in ((good, bad), (bad, good)):
        with pytest.raises(EncoderError, match="feature 2 holds NaN"):
            mutual_ranks(left, right, own, own)


def test_negatives_are_looked_at_a_few_queries_at_a_time(monkeypatch):
    torch.manual_seed(0)
    gallery = torch.nn.functional.normalize(torch.randn(40, 8), dim=1)
    gallery[20:] = gallery[:20]  # ties
    positives = Positives(
        np.arange(41) * 3, np.concatenate([np.random.default_rng(q).permutation(40)[:3] for q in range(40)])
    )

    def found() -> np.ndarray:
        asked = gallery, gallery, positives, np.arange(40)
        return np.stack([average_precision(*asked), top_precision(*asked)])

    whole = found()
    for pairs in (1, 100, 41):
        monkeypatch.setattr(retrieval, "PAIRS", pairs)
        np.testing.assert_array_equal(found(), whole)


def test_pairs_and_counts_of_a_mask_are_those_of_numpy_however_it_lies() -> None:
    mask = torch.rand(40, 700, generator=torch.Generator().manual_seed(0)) < 0.9
    for laid in (mask, mask.T.contiguous().T, mask[:, :255].T.contiguous().T):
        assert exact_products.count_rows(laid).tolist() == laid.numpy().sum(1).tolist()
        found = set(zip(*(part.tolist() for part in exact_products.true_pairs(laid))))
        assert found == set(map(tuple, np.argwhere(laid.numpy()).tolist())) and len(found) == int(laid.sum())


def test_single_products_are_those_of_the_whole_in_chunks_of_any_size(monkeypatch):
    a, b = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    rows, columns = torch.tensor([0, 8, 3, 3, 5, 8, 1]), torch.tensor([8, 0, 2, 3, 5, 8, 1])
    whole = exact_products.exact_tile(a, b)
    assert whole.dtype == torch.float64
    for size in (1, 16 * 5 * 3, 1 << 20):
        monkeypatch.setattr(exact_products, "_PAIR_BYTES", size)
        torch.testing.assert_close(exact_products.exact_pairs(a, b, rows, columns), whole[rows, columns])
    assert len(exact_products.exact_pairs(a, b, rows[:0], rows[:0])) == 0
    assert exact_products.rounding_margin(16) == 8 * 4 * 2.0**-24  # 8 √D u of Higham and Mary
