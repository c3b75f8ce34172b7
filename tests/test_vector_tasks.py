"""UnED's metric against a loop over pictures, and the sources and batches of the linear sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import miniatures
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from small import Noise, SmallEncoder, made

from benchmark.contracts import ImageTransform, Outcome, RetrievalData
from benchmark.contracts.progress import silent
from benchmark.engine.run import run
from benchmark.heads.linear_sweep import fit_linear_sweep
from benchmark.heads.schedule import batches
from benchmark.images.decode import apply_transform
from benchmark.images.views import resolve_view
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, open_dataset, protocol_file
from benchmark.rows.row import metrics_of
from tasks.global_vectors import GlobalVectors
from tasks.instance_retrieval import TASK as INSTANCE_RETRIEVAL
from tasks.instance_retrieval import InstanceRetrieval
from tasks.linear_answers import linear_answers
from tasks.swept_vectors import CropFeed, StoredVectors, layer_taps, random_box, sources_for

MODEL = f"{Path(__file__).parent}/small_model.py:build"


@pytest.mark.parametrize("index", ["merged", "per-domain"])
def test_uned_is_a_loop_over_queries(index: str, tmp_path: Path) -> None:
    """Mean over domains of: is the nearest other picture of the same class and the same domain?"""
    folder = miniatures.uned(tmp_path) / "images"
    for near in ("cars/car_ims", "sop/chair_final"):  # a class whose two pictures resemble each other
        pixels = np.asarray(Image.open(folder / near / "0.jpg")).astype(int)
        Image.fromarray((pixels + 2).clip(0, 255).astype(np.uint8)).save(folder / near / "1.jpg", quality=95)
    options: dict[str, Any] = {
        "protocol": "paper",
        "overrides": {"index": index},
        "check": False,
        "results": tmp_path / "r",
    }
    report = run(MODEL, "instance_retrieval/uned", data=tmp_path, cache=tmp_path / "cache", **options)
    (row,) = report.rows
    data, encoder = open_dataset("uned", tmp_path).data("retrieval", "test"), SmallEncoder()

    def vector(image: np.ndarray) -> np.ndarray:
        cls = encoder.encode_image(torch.from_numpy(apply_transform(image, encoder.transform))[None]).cls[0, 0].double()
        return (cls / cls.norm()).numpy()

    there = [vector(data.index.load(i)) for i in range(len(data.index))]
    hits: dict[str, list[bool]] = {}
    for q in range(len(data.queries)):
        mine, best, nearest = vector(data.queries.load(q)), -2.0, -1
        for i, other in enumerate(there):
            if data.self_index is not None and i == data.self_index[q]:
                continue
            if index == "per-domain" and data.index_domains[i] != data.query_domains[q]:
                continue
            score = float(mine @ other)
            if score > best:
                best, nearest = score, i
        found = data.index_domains[nearest], data.index_labels[nearest]
        same = found == (data.query_domains[q], data.query_labels[q])
        hits.setdefault(data.query_domains[q], []).append(bool(same))
    assert len(hits) == 8
    assert row.main.value == pytest.approx(100 * np.mean([np.mean(h) for h in hits.values()]))
    assert row.main.value not in (0, 100), "the pictures must make it a question"


def test_equal_pictures_of_two_labels_answer_each_other() -> None:
    """Pictures 0 and 2 are one, labelled a and b: for either a hit of both labels is right; 4 is alone with c."""
    vectors = torch.nn.functional.normalize(torch.tensor([[1, 0], [1, 0.5], [1, 0], [0.1, 1], [1, 0.2]]), dim=1)[
        :, None
    ]

    class Twins(Noise):
        digest = "instances with twins"

        def load(self, index: int) -> np.ndarray:
            return super().load(0 if index == 2 else index)

    def found(images: Noise) -> Outcome:
        reader = type("Reader", (), {"shape": vectors.shape, "__len__": lambda self: len(vectors),
                                     "__getitem__": lambda self, rows: vectors[rows]})()  # fmt: skip
        labels, domains = np.array([0, 0, 1, 1, 2]), ["d"] * 5
        data = made(
            RetrievalData, queries=images, index=images, query_labels=labels, index_labels=labels,
            query_domains=domains, index_domains=domains, self_index=np.arange(5),
        )  # fmt: skip
        context = SimpleNamespace(
            data={"test": data}, card=None, device="cpu", features=lambda need: reader, progress=silent,
            keep_predictions=0, look_at=(),
        )  # fmt: skip
        protocol = InstanceRetrieval("encoder", 0, "first", "merged", False)
        return INSTANCE_RETRIEVAL.method(protocol).run(context)

    twins, plain = found(Twins(5)), found(Noise(5))
    assert twins.samples["hit@1"].tolist()[:4] == [1, 0, 1, 0] and plain.samples["hit@1"].tolist()[:4] == [0, 0, 0, 0]
    assert np.isnan(twins.samples["hit@1"][4]) and twins.details["queries_without_right_answer"] == 1
    assert twins.details["equal_pictures"] == {"pictures": 2, "different": 1}
    # 0 and 2: three of four others are right; 1 and 3: one of four
    assert metrics_of(twins, 0)["mean R@1"].chance == pytest.approx(100 * (0.75 + 0.25 + 0.75 + 0.25) / 4)


def test_sources_are_dinov2s_and_shallow_encoders_have_fewer() -> None:
    card = SmallEncoder().card  # two blocks
    assert [s.name for s in sources_for(card, (1, 4), "both")] == ["cls of 1 block", "cls of 1 block + mean patch"]
    both = sources_for(card, (1, 2), "both")
    assert [(t.name, t.layer) for t in layer_taps(card, both)] == [("cls", -2), ("cls", -1), ("mean_patches", -1)]
    older, newer, mean = torch.randn(3, 5, 2, 6), torch.randn(3, 5, 2, 6), torch.randn(3, 6)
    older, newer = older[:, 0], newer[:, 0]  # [3, 2, 6]
    vectors = StoredVectors([older, newer, mean], both[3], "first")
    assert torch.equal(vectors[1:3], torch.cat([older[1:3, 0], newer[1:3, 0], mean[1:3]], -1))
    assert StoredVectors([older, newer, mean], both[0], "concat").shape == (3, 12)


def feed_of(images: Noise, rows: Any, seed: int = 0) -> CropFeed:
    encoder = SmallEncoder()
    context = SimpleNamespace(card=encoder.card, encoder=lambda: encoder, device="cpu", seed=seed, progress=silent)
    transform = ImageTransform("short-side", 36, 32)
    return CropFeed(context, images, transform, sources_for(encoder.card, (1, 2), "both"), "first", rows)


def test_augmented_batches_depend_on_step_and_picture_alone() -> None:
    rows = [np.array([3, 1, 4])] * 6
    whole = list(feed_of(Noise(6), rows).made(range(6)))
    late = list(feed_of(Noise(6), rows).made(range(4, 6)))
    assert {name: tuple(x.shape) for name, x in whole[0].items()} == {
        "cls of 1 block": (3, 6), "cls of 1 block + mean patch": (3, 12),
        "cls of 2 blocks": (3, 12), "cls of 2 blocks + mean patch": (3, 18),
    }  # fmt: skip
    for again, first in zip(late, whole[4:], strict=True):
        assert all(torch.equal(again[name], first[name]) for name in first)
    name = "cls of 1 block"
    assert not torch.equal(whole[0][name], whole[1][name]), "another step is another crop"


def test_one_vector_of_several_cls_tokens() -> None:
    tokens = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))
    unit = tokens / tokens.norm(dim=2, keepdim=True)
    mean = unit.mean(1) / unit.mean(1).norm(dim=1, keepdim=True)
    right = {"first": unit[:, 0], "last": unit[:, 2], "mean": mean, "concat": unit.flatten(1) / 3**0.5}
    for choice, vectors in right.items():
        read: Any = GlobalVectors(tokens, choice)  # type: ignore[arg-type]
        assert read.shape == tuple(vectors.shape) and len(read) == 5
        torch.testing.assert_close(read[0:5], vectors)
        torch.testing.assert_close(read[3], vectors[3])


@pytest.mark.parametrize(("preset", "rule"), [("dinov2", "bicubic"), ("dinov3", "bicubic"), ("paper", "bilinear")])
def test_the_dino_presets_resize_bicubically_whatever_the_encoder_does(preset: str, rule: str) -> None:
    """`paper` lays pictures as the encoder does, here bilinearly; crops of the sweep follow the view."""
    encoder, task = SmallEncoder(), load_task("classification")
    encoder.transform = ImageTransform("square", 32, interpolation="bilinear")
    values = load_protocol(task.name, task.schemas, protocol_file(task.name), preset).values
    data = {split: SimpleNamespace(images=Noise(2)) for split in ("train", "test")}
    for need in task.method(values).needs(encoder.card, data).values():
        resolved = resolve_view(need.view, encoder.transform, encoder.card, need.images)
        assert resolved.transform is not None and resolved.transform.interpolation == rule
    with pytest.raises(ValueError, match="interpolation = bicubic needs a view other than encoder"):
        replace(values, view="encoder", interpolation="bicubic")


def small_set(n: int, classes: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """CLS [n, 1, D] of unequal scales around a large mean and labels, of a training and a test split."""
    rng = np.random.default_rng(seed)
    centre, scale = rng.normal(size=(classes, 24)), rng.uniform(0.002, 0.5, 24)
    labels = {split: rng.integers(0, classes, n) for split in ("train", "test")}
    taps = {k: (centre[y] + 1.5 * rng.normal(size=(n, 24))) * scale + 3 for k, y in labels.items()}
    return {k: torch.tensor(x, dtype=torch.float32)[:, None] for k, x in taps.items()}, labels


@pytest.mark.parametrize(("n", "classes"), [(300, 10), (1500, 40)])
def test_the_linear_head_of_fast_is_converged_on_few_pictures(n: int, classes: int) -> None:
    """As good as scikit-learn's logistic regression run to its end, where 60 steps of SGD were near chance."""
    x, y = small_set(n, classes)
    task = load_task("classification")
    protocol = load_protocol(task.name, task.schemas, protocol_file(task.name), "fast").values
    names = [str(c) for c in range(classes)]
    data = {s: SimpleNamespace(images=Noise(n), labels=y[s], class_names=names) for s in ("train", "test")}
    card = replace(SmallEncoder().card, embed_dim=24, num_cls=1)
    context = SimpleNamespace(
        data=data, card=card, seed=0, device="cpu", progress=silent, features=lambda need: x[need.split("/")[0]],
        keep_predictions=0, look_at=(),
    )  # fmt: skip
    outcome = task.method(replace(protocol, linear_with_patches=False)).run(context)
    ours = {m.name: m.statistic.of(outcome.samples) for m in outcome.measurements}["linear top-1"]
    a, b = (StandardScaler().fit(x["train"][:, 0]).transform(x[s][:, 0]) for s in ("train", "test"))
    regressions = (LogisticRegression(C=c, max_iter=5000).fit(a, y["train"]) for c in (1e-2, 1e-1, 1, 10))
    assert ours >= 100 * max(r.score(b, y["test"]) for r in regressions) - 3
    chosen = outcome.details["linear_head"]
    tried = [h["holdout_accuracy"] for h in outcome.details["linear_path"] if "holdout_accuracy" in h]
    assert chosen["source"] == "cls" and chosen["penalty"] > 0 and len(tried) >= 3


@pytest.mark.parametrize("task", ["image_to_text_retrieval", "text_to_image_retrieval", "zero_shot_classification"])
def test_cls_tokens_side_by_side_do_not_meet_texts(task: str) -> None:
    """Two tokens are twice as long as a text's vector."""
    loaded, card = load_task(task), SmallEncoder().card
    values = load_protocol(task, loaded.schemas, protocol_file(task), "paper").values
    assert "not in text space" in str(loaded.refusal(card, replace(values, cls="concat")))
    assert loaded.refusal(card, replace(values, cls="mean")) is None


@pytest.mark.parametrize("shape", [(100, 100), (30, 200), (200, 30)])
def test_random_boxes_lie_inside_with_the_wanted_areas(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(*shape, rng) for _ in range(300)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0 and boxes[:, 2].max() <= shape[1] and boxes[:, 3].max() <= shape[0]
    assert (height > 0).all() and (width > 0).all()
    ratio = width / height
    assert ratio.min() > 0.7 and ratio.max() < 1.4
    assert (ratio < 0.85).any() and (ratio > 1.18).any()
    if shape == (100, 100):
        assert (width * height / 10_000).min() > 0.07 and (width * height / 10_000).max() > 0.9


def test_a_picture_in_which_no_box_fits_gives_its_middle() -> None:
    """As torchvision's RandomResizedCrop: the widest ratio, or the narrowest, in the middle."""
    rng = np.random.default_rng(0)
    assert random_box(6, 600, rng) == (296, 0, 304, 6) and random_box(600, 6, rng) == (0, 296, 6, 304)


def test_an_interrupted_sweep_ends_with_the_same_heads(tmp_path: Path) -> None:
    images, labels = Noise(40), np.arange(40) % 3
    stored = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    held = np.arange(40) % 5 == 0
    keys = ("cls of 1 block", "cls of 1 block + mean patch", "cls of 2 blocks", "cls of 2 blocks + mean patch")
    sources = {k: torch.cat([stored] * n, 1) for k, n in zip(keys, (1, 2, 2, 3))}

    class Stop(Exception):
        pass

    rows = list(batches(np.flatnonzero(~held), 8, 12, 0))

    def feed(start):
        return feed_of(images, rows).made(range(start, 12))

    def cut(start):
        for step, batch in enumerate(feed(start)):
            if step == 7:
                raise Stop
            yield batch

    def sweep(feed, state):
        rest: dict[str, Any] = {"learning_rates": [0.1, 0.01], "steps": 12, "batch": 8}
        return fit_linear_sweep(sources, labels, 3, held, **rest, feed=feed, state=state, save_every=0.0)

    calm = sweep(feed, tmp_path / "calm")
    with pytest.raises(Stop):
        sweep(cut, tmp_path / "state")
    starts: list[int] = []

    def counting(start):
        starts.append(start)
        return feed(start)

    again = sweep(counting, tmp_path / "state")
    assert starts == [7], "only what was missing"
    assert torch.equal(again.weight, calm.weight) and again.table == calm.table and again.curve == calm.curve
    (tmp_path / "state").write_bytes(b"damaged")
    assert torch.equal(sweep(feed, tmp_path / "state").weight, calm.weight)


def test_the_state_of_another_sweep_is_no_beginning_of_this_one(tmp_path: Path) -> None:
    """And a bar counts the steps that were done before; its words are the lowest loss."""
    x, labels = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), np.arange(40) % 3
    held, done, said = np.arange(40) % 5 == 0, [0], [""]
    bar: Any = SimpleNamespace(
        advance=lambda n=1: done.append(done.pop() + n), note=lambda words: said.append(words)
    )  # fmt: skip

    def sweep(state: Path, stop: int = 99, **how: Any) -> Any:
        given = {"learning_rates": [0.1, 0.01], "steps": 8, "batch": 8, "seed": 0, **how}

        def feed(start: int) -> Any:
            rows = list(batches(np.flatnonzero(~held), given["batch"], given["steps"], given["seed"]))
            for step, row in enumerate(rows[start:], start):
                if step == stop:
                    raise InterruptedError
                yield {"x": x[row]}

        return fit_linear_sweep(
            {"x": x}, labels, 3, held, **given, feed=feed, state=state, save_every=0.0, progress=bar
        )

    changes: list[dict[str, Any]] = [{"seed": 1}, {"batch": 16}, {"steps": 9}, {"learning_rates": [0.1, 0.02]}, {}]
    for i, change in enumerate(changes):
        with pytest.raises(InterruptedError):
            sweep(tmp_path / str(i), stop=5)
        done[0] = 0
        found = sweep(tmp_path / str(i), **change)
        assert done == [change.get("steps", 8)]
        fresh = sweep(tmp_path / f"fresh {i}", **change)
        assert torch.equal(found.weight, fresh.weight) and found.curve == fresh.curve, change
    alone = sweep(tmp_path / "alone", learning_rates=[0.1])
    assert said[-1] == f"lowest loss {alone.curve[-1][1]:.4f}" and len(alone.curve) == 8


def test_linear_answers_are_those_of_all_rows_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    labels = np.arange(30) % 5
    monkeypatch.setattr("tasks.linear_answers.BLOCK", 8)
    head: Any = SimpleNamespace(vectors=vectors, logits=lambda x: x)
    hits, best = linear_answers(head, labels, "cpu")
    assert best.tolist() == vectors.argmax(1).tolist() and hits.tolist() == (best == labels).astype(float).tolist()
