"""Nearest neighbours: exact, with ties to the lower index, whatever the blocks; votes for every k."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from benchmark.errors import DataError, EncoderError
from benchmark.heads import coarse, knn
from benchmark.heads.knn import knn_votes, topk_search


def brute_force(q: np.ndarray, g: np.ndarray, k: int, own: np.ndarray) -> np.ndarray:
    unit = [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32).astype(float) for x in (q, g)]
    score = np.round(unit[0] @ unit[1].T * 2**30)
    score[own >= 0, own[own >= 0]] = -np.inf
    return np.argsort(-score, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(
    ("kind", "n", "dim", "k"),
    [("random", 3000, 8, 200), ("copies", 5000, 16, 10), ("integers", 2500, 4, 7), ("one point", 3000, 8, 20),
     ("small", 30, 8, 29), ("near lengths", 5000, 64, 10), ("all lengths", 5000, 64, 10)],
)  # fmt: skip
def test_search_equals_brute_force_ties_included(kind: str, n: int, dim: int, k: int) -> None:
    rng = np.random.default_rng(5)
    g, q = rng.normal(size=(n, dim)).astype(np.float32), rng.normal(size=(40, dim)).astype(np.float32)
    if kind == "copies":
        g[1000:2000], g[4000:4500] = g[:1000], g[3]
    if kind == "integers":
        g, q = np.round(g) + 0.5, np.round(2 * q) + 0.5
    if kind == "one point":
        g[:] = g[0]
    if kind.endswith("lengths"):  # fewer queries than features; squares of the second may leave float32
        g *= (rng.uniform(1, 1.0005, (n, 1)) if kind == "near lengths" else 10.0 ** rng.uniform(-16, 16, (n, 1))) / 8
    own = rng.integers(-1, n, 40)
    expected = brute_force(q, g, k, own)
    for block_bytes in (1 << 16, 256 << 20):
        score, index = topk_search(q, g, k, own, block_bytes)
        assert np.array_equal(index.numpy(), expected)
        assert (score.diff(dim=1) <= 0).all()


def test_cosines_are_those_of_correctly_rounded_norms() -> None:
    x = np.random.default_rng(1).normal(size=(500, 771)).astype(np.float32)
    unit = (x / np.linalg.norm(x.astype(float), axis=1, keepdims=True).astype(np.float32)).astype(float)
    expected = np.sort(unit @ unit.T, axis=1)[:, ::-1]
    np.testing.assert_allclose(topk_search(x, x, 500)[0].numpy(), expected, rtol=0, atol=1e-11)


def test_search_reads_a_memory_map(tmp_path: Path) -> None:
    g = np.random.default_rng(0).normal(size=(2500, 6)).astype(np.float32)
    np.save(tmp_path / "index.npy", g)
    mapped = np.load(tmp_path / "index.npy", mmap_mode="r")
    assert torch.equal(topk_search(g[:9], mapped, 5)[1], topk_search(g[:9], torch.tensor(g), 5)[1])


def test_the_best_rows_may_come_last() -> None:
    target = np.array([[1.0, 0.0]], np.float32)
    angle = np.linspace(1.5, 0.0, 5000)
    rows = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    assert topk_search(target, rows, 4)[1].tolist() == [[4999, 4998, 4997, 4996]]


def test_impossible_searches_are_refused() -> None:
    rows = np.ones((4, 3), np.float32)
    with pytest.raises(DataError, match="k = 5 neighbours asked of 4"):
        topk_search(rows, rows, 5)
    for k, own, others in ((4, np.zeros(4, int), 3), (0, None, 4)):
        with pytest.raises(DataError, match=f"k = {k} neighbours asked of {others} index rows: .* 1 and {others}"):
            topk_search(rows, rows, k, own)
    assert [part.shape for part in topk_search(rows[:0], rows, 3)] == [(0, 3), (0, 3)]
    assert topk_search(rows, rows, 4)[1].tolist() == [[0, 1, 2, 3]] * 4
    zero = rows.copy()
    zero[2] = 0
    with pytest.raises(EncoderError, match="index feature 2 is zero"):
        topk_search(rows, zero, 1)
    with pytest.raises(EncoderError, match="query feature 2 is zero"):
        topk_search(zero, rows, 1)


@pytest.mark.parametrize("k", [10, 20, 100])
def test_votes_equal_scikit_learns_for_every_k_of_one_search(k: int) -> None:
    rng = np.random.default_rng(0)
    x, y, q = rng.normal(size=(400, 8)), rng.integers(0, 6, 400), rng.normal(size=(60, 8))
    x, q = x.astype(np.float32), q.astype(np.float32)
    score, index = topk_search(q, x, 100)
    votes = knn_votes(score, torch.tensor(y)[index], 6, (10, 20, 100))[k]
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)).fit(x, y)
    share = votes / votes.sum(1, keepdim=True)
    np.testing.assert_allclose(share.numpy(), reference.predict_proba(q), atol=1e-4)
    assert np.array_equal(votes.argmax(1).numpy(), reference.predict(q))


def test_tied_votes_go_to_the_lower_class_as_scikit_learns_do() -> None:
    x, y = np.array([[1.0, 0.1], [1.0, -0.1]], np.float32), np.array([1, 0])
    score, index = topk_search(np.array([[1.0, 0.0]], np.float32), x, 2)
    votes = knn_votes(score, torch.tensor(y)[index], 2, (2,))[2]
    assert votes[0, 0] == votes[0, 1]
    reference = KNeighborsClassifier(2, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)).fit(x, y)
    assert votes.argmax(1).tolist() == reference.predict(np.array([[1.0, 0.0]])).tolist() == [0]


def test_votes_are_dinos_unless_asked_otherwise() -> None:
    score, labels = torch.linspace(1, 0.5, 200)[None], (torch.arange(200) % 3)[None]
    votes = knn_votes(score, labels, 3)
    weight = np.exp((score[0].double().numpy() - 1) / 0.07)
    for k in (10, 20, 100, 200):
        expected = [weight[:k][np.arange(k) % 3 == c].sum() / weight.sum() for c in range(3)]
        np.testing.assert_allclose(votes[k][0], expected, rtol=1e-6)
    assert list(votes) == [10, 20, 100, 200] and list(knn_votes(score, labels, 3, (5, 1))) == [5, 1]


def test_votes_beyond_the_search_are_refused() -> None:
    with pytest.raises(DataError, match="kept 5 neighbours"):
        knn_votes(torch.zeros(1, 5), torch.zeros(1, 5), 2, (10,))


@pytest.mark.parametrize("kind", ["random", "copies", "near", "one point"])
@pytest.mark.parametrize("own", [False, True])
def test_a_first_look_in_bfloat16_changes_nothing(kind: str, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    g, q = rng.normal(size=(9000, 32)).astype(np.float32), rng.normal(size=(60, 32)).astype(np.float32)
    if kind == "copies":
        g[5000:8000] = g[:3000]
    if kind == "near":  # cosines within bfloat16's rounding of each other
        g = g[:1] + 0.01 * g
        q[:30] = g[:30]
    if kind == "one point":
        g[:] = g[0]
    exclude = rng.integers(-1, len(g), len(q)) if own else None
    wide = topk_search(q, g, 10, exclude)
    looks = []
    monkeypatch.setattr(knn, "_LARGE", 0)
    monkeypatch.setattr(coarse, "pays", lambda width: True)
    reaching = coarse.Coarse.reaching
    monkeypatch.setattr(coarse.Coarse, "reaching", lambda *args: looks.append(reaching(*args)) or looks[-1])
    narrow = topk_search(q, g, 10, exclude)
    assert torch.equal(narrow[1], wide[1]) and torch.equal(narrow[0], wide[0])
    assert any(look is not None for look in looks) is (kind in ("random", "copies"))


@pytest.mark.parametrize("width", [1, 7, 256])
def test_bfloat16_falls_short_of_a_cosine_by_less_than_its_margin(width: int) -> None:
    torch.manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(500, width) ** 3) for _ in range(2))
    b[:250] = a[:250]  # the largest products, of one sign
    true, near = (a.double() * b.double()).sum(1), torch.diagonal(a.bfloat16() @ b.bfloat16().T)
    short = true - near.double()
    assert float(short.max()) < coarse.MARGIN


def test_the_margin_of_bfloat16_is_the_sum_of_its_roundings_and_little_more() -> None:
    """Each input by 2⁻⁹ of itself and the result by 2⁻⁹; what is over is for sums and norms in float32."""
    over = coarse.MARGIN - ((1 + 2.0**-9) ** 2 - 1) - 2.0**-9
    assert 0.9 * 2.0**-12 < over <= 2.0**-12


def test_a_first_look_gives_the_pairs_that_reach_the_floor_and_no_others() -> None:
    """In the order of rows; nothing where more than one pair in a hundred is left, or a floor is not above zero."""
    q, g = torch.eye(4)[:2].contiguous(), torch.eye(4)[[2]].repeat(300, 1)
    g[5, 0], g[7, 1], g[9, 0], g[11, 1] = 0.5, 0.75, 0.499, 0.7499
    look, floor = coarse.Coarse(q, 512), torch.tensor([0.5, 0.75])
    found = look.reaching(g, floor)
    assert found is not None and [part.tolist() for part in found] == [[0, 1], [5, 7], [0.5, 0.75]]
    assert look.reaching(g, torch.tensor([0.5, 0.0])) is None
    g[20:22, 0] = 1.0  # six of 600 pairs are looked at again, and then seven
    assert len(look.reaching(g, floor)[0]) == 4  # type: ignore[index]
    g[22, 0] = 1.0
    assert look.reaching(g, floor) is None


def test_the_quicker_way_is_the_one_that_was_measured_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    q, g = torch.randn(3, 5), torch.randn(4, 5)
    for way in (coarse.by_torch, coarse.by_numpy):
        out = torch.empty(3, 4)
        way(q, g, out)
        torch.testing.assert_close(out, q @ g.T)
    clock, steps = [0.0], iter([5.0, 2.0, 1.0, 2.0, 3.0, 9.0] + [4.0] * 10)
    monkeypatch.setattr(coarse.time, "perf_counter", lambda: clock[0])

    def work() -> None:
        clock[0] += next(steps)

    assert coarse._least([work, work]) == [1.0, 2.0] and not list(steps)
    for took, way, better in (([2.0, 1.0], coarse.by_numpy, False), ([0.79, 1.0], coarse.by_torch, True)):
        monkeypatch.setattr(coarse, "_least", lambda calls, took=took: [call() for call in calls] and took)
        assert coarse.quicker_product.__wrapped__(4) is way and coarse.pays.__wrapped__(4) is better
    monkeypatch.setattr(coarse, "_least", lambda calls: [0.8, 1.0])
    assert not coarse.pays.__wrapped__(4)
