"""In-context segmentation against plain readings of Hummingbird's and capi's evaluations, on the same features."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import interpolate, normalize, one_hot
from training_context import MemoryContext, Ramps, preset

from benchmark.contracts import Outcome, SegmentationData
from benchmark.errors import DataError
from benchmark.registry import suites, tasks_on, units
from tasks.dense import held_out_images
from tasks.in_context_segmentation import TASK, PatchMemoryMethod
from tasks.linear_segmentation import TASK as LINEAR
from tasks.patch_memory import Memory, PatchMemory, RowFile, Space, nearest_pixels, patch_labels

GRID, PATCH, CLASSES = 6, 8, 4
SIDE = GRID * PATCH


def masks(n: int, seed: int, void: float = 0.0, classes: int = CLASSES, size: int = SIDE) -> list[np.ndarray]:
    """Blobs of classes; some pixels are unlabelled."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((n, classes, 4, 4)))
    labels = interpolate(coarse, (size, size), mode="bicubic").argmax(1).numpy().astype(np.uint8)
    labels[rng.random(labels.shape) < void] = 255
    return list(labels)


def tokens(labels: list[np.ndarray], seed: int, width: int = 12) -> torch.Tensor:
    """[N, GRID, GRID, width]: a noisy function of what each patch shows."""
    rng = np.random.default_rng(seed)
    kinds = np.random.default_rng(99).standard_normal((256, width))
    at = [kinds[nearest_pixels(mask, GRID, GRID)] for mask in labels]
    return torch.from_numpy(np.stack(at) + 0.9 * rng.standard_normal((len(labels), GRID, GRID, width)) + 0.5).float()


@dataclass(frozen=True)
class Masks(SegmentationData):
    """Masks in memory."""

    images: Ramps
    maps: Any
    class_names: Any = tuple("abcd")
    background: int | None = 0
    digest: str = "masks"

    def target(self, index: int) -> np.ndarray:
        return np.asarray(self.maps[index])


@dataclass
class Stored(MemoryContext):
    """A context with these features."""

    stored: dict[str, torch.Tensor] = field(default_factory=dict)
    cross_check: bool = False

    @property
    def card(self) -> Any:
        return SimpleNamespace(name="none", image_size=SIDE, patch_size=PATCH, depth=4)

    def features(self, need: str) -> torch.Tensor:
        return self.stored[need]


def context(tmp_path: Path, protocol: PatchMemory, void: float = 0.0, train: int = 12, test: int = 6) -> Any:
    """Blobs, and tokens that show them in noise."""
    maps = {"train": masks(train, 1, void), "test": masks(test, 2, void)}
    data = {split: Masks(Ramps(len(of), place), of) for place, (split, of) in enumerate(maps.items())}
    stored = {f"{split}/patches": tokens(of, place) for place, (split, of) in enumerate(maps.items())}
    return Stored(protocol, data, tmp_path, stored=stored)


def fields(name: str, **changes: Any) -> PatchMemory:
    return preset("in_context_segmentation", name, **{"view_size": 0, **changes})


def scored(found: Any) -> Outcome:
    return PatchMemoryMethod(found.protocol).run(found)


def miou_of(outcome: Outcome) -> float:
    return float(outcome.measurements[0].statistic.of(outcome.samples))


def plain_miou(guess: np.ndarray, truth: np.ndarray) -> float:
    """Mean over classes of the IoU, by counting."""
    kept = truth != 255
    values = [
        ((guess == c) & (truth == c))[kept].sum() / ((guess == c) | (truth == c))[kept].sum()
        for c in range(CLASSES)
        if ((guess == c) | (truth == c))[kept].any()
    ]
    return 100 * float(np.mean(values))


def blocks(labels: np.ndarray) -> np.ndarray:
    """[N, SIDE, SIDE] -> [N · patches, pixels of a patch]."""
    return labels.reshape(-1, GRID, PATCH, GRID, PATCH).swapaxes(2, 3).reshape(-1, PATCH * PATCH)


@pytest.mark.parametrize("void", [0.0, 0.2])
def test_hummingbird_is_its_open_evaluation_on_the_same_features(void: float, tmp_path: Path) -> None:
    """open-hummingbird-eval @ 5e79da2 step by step, with its unbounded memory and without its Hungarian matching of
    predicted classes to true ones."""
    found = context(tmp_path, fields("hummingbird"), void)
    keys = normalize(found.stored["train/patches"].flatten(0, 2), dim=1)
    train, test = (np.stack(found.data[split].maps) for split in ("train", "test"))
    values = one_hot(torch.from_numpy(blocks(np.where(train == 255, 0, train))).long(), CLASSES).float().mean(1)
    queries = found.stored["test/patches"].flatten(0, 2)
    _, near = (queries @ keys.T).topk(30, 1)
    attention = (normalize(queries, dim=1)[:, None] * keys[near]).sum(2).div(0.02).softmax(1)
    hat = (attention[..., None] * values[near]).sum(1).reshape(len(test), GRID, GRID, CLASSES).permute(0, 3, 1, 2)
    guess = interpolate(hat, (SIDE, SIDE), mode="bilinear").argmax(1).numpy()
    mine = miou_of(scored(found))
    assert mine == pytest.approx(plain_miou(guess, test), abs=0.1) and 20 < mine < 95


def capi(found: Stored, pair: tuple[str, int], fit: np.ndarray, split: str, at: np.ndarray) -> np.ndarray:
    """Predictions [n, SIDE, SIDE] of capi's KNNClassifier for pictures `at`, fitted on training pictures `fit`."""
    features, labels = found.stored["train/patches"], np.stack(found.data["train"].maps)
    held = held_out_images(len(features), 0.1, found.seed)
    scaler = StandardScaler().fit(features[~held].flatten(0, 2).numpy())
    keys, values = (torch.from_numpy(x) for x in (scaler.transform(features[fit].flatten(0, 2)), blocks(labels[fit])))
    kept = values.mode(1).values != 255
    keys, values = keys[kept], values[kept]
    queries = torch.from_numpy(scaler.transform(found.stored[f"{split}/patches"][at].flatten(0, 2)))
    distance = (
        torch.cdist(queries, keys) if pair[0] == "L2" else 1 - normalize(queries, dim=1) @ normalize(keys, dim=1).T
    )
    near = distance.topk(pair[1], 1, largest=False).indices
    guess = values[near].mode(1).values.numpy()
    return guess.reshape(len(at), GRID, GRID, PATCH, PATCH).swapaxes(2, 3).reshape(len(at), SIDE, SIDE)


def test_capi_is_its_own_evaluation_on_the_same_features(tmp_path: Path) -> None:
    """capi @ 98b4fa1: the grid on the held-out tenth, the scaler, the mode of each pixel's labels."""
    found = context(tmp_path, fields("capi"), train=20)
    outcome, everything = scored(found), np.arange(20)
    held = held_out_images(20, 0.1, 0)
    truth = np.stack(found.data["train"].maps)[held]
    expected = {
        f"{d} {k}": plain_miou(capi(found, (d, k), np.flatnonzero(~held), "train", np.flatnonzero(held)), truth)
        for d in ("cosine", "L2")
        for k in (1, 3, 10, 30)
    }
    assert outcome.details["held_out_mIoU"] == pytest.approx(expected, abs=1e-3)
    best = max(expected, key=lambda pair: expected[pair])
    assert f"{outcome.details['distance']} {outcome.details['neighbours']}" == best and len(set(expected.values())) > 4
    pair = (outcome.details["distance"], outcome.details["neighbours"])
    guess = capi(found, pair, everything, "test", np.arange(6))
    assert miou_of(outcome) == pytest.approx(plain_miou(guess, np.stack(found.data["test"].maps)), abs=1e-3)


def test_capi_differs_only_where_it_predicts_the_ignored_label(tmp_path: Path) -> None:
    """There the neighbours' unlabelled pixels win the vote, and its mIoU has one more class, of IoU 0. Here an
    unlabelled pixel has the commonest class of its patch."""
    one = fields("capi", neighbours=(3,), distances=("cosine",))
    found = context(tmp_path, replace(one, standardise=False), void=0.3)
    memory = Memory(found, found.protocol, np.arange(12), Space("cosine"))
    (*_, (scores, near)) = memory.nearest(found.stored["test/patches"].flatten(0, 2), 3)
    cells = memory.votes(scores, near).reshape(6, GRID, GRID, PATCH, PATCH).swapaxes(2, 3).reshape(6, SIDE, SIDE)
    labels, features = np.stack(found.data["train"].maps), found.stored["train/patches"].flatten(0, 2)
    values = torch.from_numpy(blocks(labels))
    kept = values.mode(1).values != 255
    cosine = normalize(found.stored["test/patches"].flatten(0, 2), dim=1) @ normalize(features[kept], dim=1).T
    votes = values[kept][cosine.topk(3, 1).indices]
    theirs = votes.mode(1).values.numpy()
    theirs = theirs.reshape(6, GRID, GRID, PATCH, PATCH).swapaxes(2, 3).reshape(6, SIDE, SIDE)
    clear = (votes != 255).all(1).numpy().reshape(6, GRID, GRID, PATCH, PATCH).swapaxes(2, 3).reshape(6, SIDE, SIDE)
    assert (theirs == cells)[clear].all() and (theirs == 255).any() and not (cells == 255).any()


@pytest.mark.parametrize("sampling", ["uniform", "rare"])
def test_a_row_says_what_a_quarter_and_a_half_of_its_memory_score(sampling: str, tmp_path: Path) -> None:
    """The same numbers as rows of memories of that size."""

    def row(memory: int) -> Outcome:
        return scored(context(tmp_path, fields("fast", memory=memory, sampling=sampling), void=0.1))

    whole = row(12 * 20)
    sizes = whole.details["memory"]
    assert sizes["patches"] == 240 and len(set(sizes["mIoU"].values())) == 3
    for share, memory in (("1/4", 60), ("1/2", 120), ("1", 240)):
        assert sizes["mIoU"][share] == pytest.approx(miou_of(row(memory)), abs=1e-3), share
    assert miou_of(whole) == pytest.approx(sizes["mIoU"]["1"], abs=1e-3)


def test_a_memory_of_all_patches_holds_every_labelled_one(tmp_path: Path) -> None:
    found = context(tmp_path, fields("fast", memory=0, neighbours=(1000,)))
    found.data["train"].maps[3][:PATCH] = 255
    found.keep_predictions = 1
    outcome = scored(found)
    assert sum(name.startswith("pictures/") for name in outcome.files) == 3
    assert outcome.details["memory"]["patches"] == 12 * GRID**2 - GRID and outcome.details["neighbours"] == 1000
    assert set(outcome.details["per_class_iou"]) == set("abcd") and len(outcome.samples["id"]) == outcome.n == 6
    assert 0 < outcome.chance(outcome.measurements[0]) < miou_of(outcome)  # type: ignore[operator]


def test_rare_patches_are_those_of_classes_a_picture_shows_little_of(tmp_path: Path) -> None:
    """Hummingbird's rule by its words: class frequencies summed over a patch's classes, times noise; the lowest."""
    found = context(tmp_path, fields("fast", memory=12 * 6))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:PATCH, : 2 * PATCH] = 1
    found.data["train"].maps[:] = [mask] * 12

    def share(sampling: str) -> float:
        memory = Memory(found, replace(found.protocol, sampling=sampling), np.arange(12), Space("cosine"))
        return float(memory.labels[0].toarray()[:, 1].mean())

    assert share("uniform") == pytest.approx(2 / 36, abs=0.06) and share("rare") > 0.2


def test_what_unlabelled_pixels_are(tmp_path: Path) -> None:
    mask = np.full((SIDE, SIDE), 2, np.uint8)
    mask[0, :PATCH] = 1
    mask[1:PATCH, :PATCH] = 255  # the first patch: 8 pixels of class 1, the rest unlabelled
    mask[:PATCH, PATCH : 2 * PATCH] = 255  # the second: none
    data = Masks(Ramps(1, 0), [mask])

    def read(name: str, **changes: Any) -> Any:
        return patch_labels(data, 0, (GRID, GRID), PATCH, fields(name, **changes))

    _, counts, usable = read("fast")
    assert counts[0].tolist() == [0, 8, 0, 0] and usable.tolist() == [True, False] + [True] * 34
    _, counts, usable = read("hummingbird")
    assert counts[0].tolist() == [56, 8, 0, 0] and counts[1, 0] == 64 and usable.all()
    cells, _, usable = read("capi")
    assert usable.tolist() == [False, False] + [True] * 34 and (cells[2:] == 2).all()
    data.maps[0][5, 5] = 4
    with pytest.raises(DataError, match="label 4 in a training mask, but there are 4 classes"):
        read("fast")
    found = context(tmp_path, fields("fast"))
    found.data["train"].maps[:] = [np.full((SIDE, SIDE), 255, np.uint8)] * 12
    with pytest.raises(DataError, match="no labelled patch in the training images"):
        scored(found)
    one = context(tmp_path, fields("capi"), train=1)
    with pytest.raises(DataError, match="1 training picture: neighbours are chosen on a held-out one"):
        scored(one)


def test_more_than_255_classes_and_masks_of_another_size(tmp_path: Path) -> None:
    """int32 masks, unlabelled as -1, of another shape than the square; scored at their own."""
    found = context(tmp_path, fields("fast", neighbours=(1,)))
    for split, data in found.data.items():
        big = [np.kron(m.astype(np.int32) + 296, np.ones((2, 3), np.int32)) for m in data.maps]
        for mask in big:
            mask[:4] = -1
        found.data[split] = replace(data, maps=big, class_names=tuple(map(str, range(300))))
    for protocol in (found.protocol, fields("fast", labels="pixels", resolution="view")):
        found.protocol = protocol
        outcome = scored(found)
        seen = outcome.samples["target_area"].sum(0)
        assert seen[:296].sum() == 0 and seen[296:].min() > 0 and miou_of(outcome) > 20
    assert outcome.samples["labelled"].max() <= SIDE**2


@pytest.mark.parametrize("width", [3, 40])
def test_cosines_in_the_space_of_distances_fall_with_distance(width: int) -> None:
    rng = np.random.default_rng(0)
    keys = torch.from_numpy(rng.standard_normal((500, width)) * rng.uniform(0.1, 9, (500, 1)) + 2).float()
    queries = torch.from_numpy(rng.standard_normal((60, width)) * 3).float()
    space = Space("L2")
    space.lift(iter(keys.split(100)))
    cosine = normalize(space.queries(queries), dim=1) @ normalize(space.keys(keys), dim=1).T
    nearest = torch.cdist(queries.double(), keys.double()).topk(5, largest=False)
    at = torch.cdist(queries.double(), keys.double()).gather(1, cosine.topk(5).indices)
    assert torch.allclose(at, nearest.values, rtol=1e-4)


def test_rows_in_a_file_are_rows(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    file = RowFile(tmp_path / "new", 3)
    file.append(rows[:40])
    assert (file[10:20] == rows[10:20]).all()
    file.append(rows[40:])
    for asked in (
        slice(0, 100),
        slice(95, 200),
        np.array([3]),
        np.array([0, 2, 3, 50, 51, 99]),
        np.array([], np.int64),
    ):
        assert (file[asked] == rows[asked]).all() and file[asked].shape == rows[asked].shape
    assert len(file) == 100 and file.shape == (100, 3) and not list((tmp_path / "new").iterdir())


def test_fast_reads_one_view_with_the_linear_probe_and_peers_their_own() -> None:
    card: Any = SimpleNamespace(name="x", image_size=224, patch_size=14, depth=12)
    data = {split: SimpleNamespace(images=Ramps(3, 0)) for split in ("train", "test")}

    def views(task: Any, protocol: Any) -> set[Any]:
        return {need.view for need in task.method(protocol).needs(card, data).values()}

    mine = {name: preset("in_context_segmentation", name) for name in ("fast", "hummingbird", "capi")}
    assert views(TASK, mine["fast"]) == views(LINEAR, preset("linear_segmentation", "fast"))
    assert {view.size for view in views(TASK, mine["hummingbird"])} == {504}  # whole patches
    assert {view.size for view in views(TASK, mine["capi"])} == {224}
    assert TASK.refusal(card, mine["fast"]) is None
    refused = TASK.refusal(card, replace(mine["fast"], layer=20))
    assert refused == "x has 12 layers, the protocol asks for layer 20"


def test_names_of_data_sets_mean_what_they_meant() -> None:
    for name in ("ade20k", "voc2012"):
        assert [str(unit) for unit in units(name)] == [f"linear_segmentation/{name}"]
        assert "in_context_segmentation" in tasks_on(name)
    assert [str(unit) for unit in units("scenes")] == suites()["scenes"]["units"]
    assert str(units("in_context_segmentation/scenes")[0]) == "in_context_segmentation/scenes"
    for unit in suites()["dense"]["units"]:
        assert [str(found) for found in units(unit)] == [unit]


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="distances is empty"):
        fields("fast", distances=())
    with pytest.raises(ValueError, match=r"temperature = 0\.02 is one of cosines"):
        fields("fast", distances=("cosine", "L2"))
