"""Pairs of NAVI: cameras and surfaces of a ball that is seen from all around, the matches of Probe3D's own steps on the
same features, and an oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import miniatures as mini
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, normalize
from training_context import MemoryContext, preset

from benchmark.contracts import Outcome
from benchmark.errors import DataError, UsageError
from benchmark.registry import open_dataset
from benchmark.statistics.bootstrap import interval
from tasks.correspondence import TASK
from tasks.datasets.navi_pairs import NaviPairs, choose, degrees, pose
from tasks.dense_matches import DenseMatchesMethod

SIZE, GRID = 64, 16
RADIUS, AWAY = (n / 1000 for n in mini.BALL)


@dataclass
class Stored(MemoryContext):
    """A context with these features [N, h, w, D]."""

    tokens: Any = None
    card_: Any = field(default_factory=lambda: SimpleNamespace(name="none", image_size=SIZE, patch_size=4, depth=4))

    @property
    def card(self) -> Any:
        return self.card_

    def features(self, need: str) -> torch.Tensor:
        return self.tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("navi")
    mini.navi_views(found, 8)
    return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The miniature is the whole of NAVI, and each picture begins a pair."""
    monkeypatch.setattr("tasks.datasets.navi.expected", lambda *_: 8)
    monkeypatch.setattr("tasks.datasets.navi.STEP", 1)


@pytest.fixture
def data(folder: Path) -> NaviPairs:
    found = open_dataset("navi", folder, {"size": str(SIZE)}).data("correspondence", "test")
    assert isinstance(found, NaviPairs)
    return found


def turned(i: int) -> np.ndarray:
    """The rotation of view i of the miniature."""
    c, s = np.cos(np.radians(25 * i)), np.sin(np.radians(25 * i))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def scored(found: Any) -> Outcome:
    return DenseMatchesMethod(found.protocol).run(found)


def value(outcome: Outcome, name: str) -> float:
    one = next(m for m in outcome.measurements if m.name == name)
    return float(one.statistic.of(outcome.samples))


def test_pairs_are_views_of_one_object_up_to_120_degrees_apart(data: NaviPairs) -> None:
    numbers = [int(data.images.image_id(i).rsplit("/", 1)[1].split(".")[0]) for i in range(len(data.images))]
    assert len(data) == 8 and {data.thing_of(data.images.image_id(0))} == set(data.categories) == {"dino"}
    for pair, (source, target) in enumerate(data.pairs.tolist()):
        angle = 25 * abs(numbers[source] - numbers[target])
        assert 0 < angle <= 120
        assert data.views[pair] == f"{angle // 30 * 30}–{angle // 30 * 30 + 30}°"
    assert len({tuple(pair) for pair in data.pairs.tolist()}) == 8
    again = choose(["a"] * 3 + ["b"], np.stack([np.eye(4)] * 4), 1)
    assert again == []  # views without a turn between them, and one alone


def test_points_carried_from_view_to_view_stay_where_they_are_on_the_object(data: NaviPairs) -> None:
    numbers = [int(data.images.image_id(i).rsplit("/", 1)[1].split(".")[0]) for i in range(len(data.images))]
    move, seen = np.array([0, 0, AWAY]), 0
    for pair, (source, target) in enumerate(data.pairs.tolist()):
        first, second = turned(numbers[source]), turned(numbers[target])
        one, other = data.points(pair)
        seen += len(one)
        if not len(one):
            continue
        here = (data._at(source, one) - move) @ first  # in the ball's own frame
        there = (data.located(pair, other) - move) @ second
        assert np.abs(np.linalg.norm(here, axis=1) - RADIUS).max() < 0.008  # as coarse as its pixels
        assert np.linalg.norm(here - there, axis=1).max() < 0.02  # a pixel of the target is 6 mm and more at the rim
        np.testing.assert_allclose(data.carried(pair, one), here @ second.T + move, atol=1e-9)
        np.testing.assert_allclose(data.projected(pair, data.carried(pair, one)), other)
        assert data.extent(pair) > 0.9 * SIZE
    assert seen > 60
    assert np.isnan(data.located(0, np.array([[0.5, 0.5], [-1, 5], [5, SIZE]]))).all()


def test_a_camera_is_what_navi_says_and_one_without_a_pose_is_refused() -> None:
    found = pose({"q": [np.cos(0.4), 0, np.sin(0.4), 0], "t": [1, 2, 3000]}, "x")
    np.testing.assert_allclose(found[:3, 3], [0.001, 0.002, 3])
    np.testing.assert_allclose(found[0, :3], [np.cos(0.8), 0, np.sin(0.8)], atol=1e-12)
    assert degrees(np.eye(4), found[None])[0] == pytest.approx(np.degrees(0.8))
    np.testing.assert_allclose(pose({"q": [2, 0, 0, 0], "t": [0, 0, 0]}, "x"), np.eye(4))
    for bad in ({}, {"q": [0, 0, 0, 0], "t": [0, 0, 0]}, {"q": [1, 0, 0], "t": [0, 0, 0]}, {"q": "n", "t": None}, 3):
        with pytest.raises(DataError, match="wild: has no camera pose"):
            pose(bad, "wild")


def probe3d(found: Any, data: NaviPairs) -> dict[str, float]:
    """evaluate_navi_correspondence.py and `estimate_correspondence_xyz`, step by step."""
    p, errors, moved, two, angles = found.protocol, [], [], [], []
    for one, other in data.pairs.tolist():
        grids = []
        for image in (one, other):
            xyz = torch.from_numpy(np.nan_to_num(data._shown(image)[0])).permute(2, 0, 1).float()
            xyz = interpolate(xyz[None], scale_factor=p.grid / SIZE, mode="nearest")[0]
            fine = interpolate(found.tokens[image].permute(2, 0, 1)[None], size=xyz.shape[1:], mode="bicubic")[0]
            on = xyz[2] > 0
            grids.append((normalize(fine.permute(1, 2, 0)[on], dim=-1), xyz.permute(1, 2, 0)[on]))
        (here, xyz0), (there, xyz1) = grids
        index = torch.cdist(here, there).topk(2, dim=1, largest=False).indices
        cosine = 1 - torch.stack([(here * there[index[:, k]]).sum(1) for k in range(2)], 1)
        weight = 1 - cosine[:, 0].clamp(min=1e-9) / cosine[:, 1].clamp(min=1e-9)
        kept = weight.topk(min(p.matches, len(weight))).indices
        move = torch.from_numpy(data.poses[other] @ np.linalg.inv(data.poses[one])).float()
        carried = xyz0[kept] @ move[:3, :3].T + move[:3, 3]
        met = xyz1[index[kept, 0]]
        errors.append((carried - met).norm(dim=1))
        focal = data._shown(other)[1]
        flat = [focal * xyz[:, :2] / xyz[:, 2:].clamp(min=1e-9) for xyz in (carried, met)]
        moved.append((flat[0] - flat[1]).norm(dim=1))
        two.append((errors[-1] < 0.02).float().mean())
        angles.append(float(degrees(data.poses[one], data.poses[other][None])[0]))
    out = {f"recall@{m:g} m": 100 * float((torch.stack(errors) < m).float().mean()) for m in (0.01, 0.02, 0.05)}
    out |= {f"recall@{n} px": 100 * float((torch.stack(moved) < n).float().mean()) for n in (5, 25, 50)}
    for low in (0, 30, 60, 90):
        rows = [float(r) for r, a in zip(two, angles) if low <= a < low + 30]
        if rows:
            out[f"recall@0.02 m, view {low}–{low + 30}°"] = 100 * float(np.mean(rows))
    return out


def test_the_last_output_is_asked_for_or_a_block_by_its_number(data: NaviPairs) -> None:
    card: Any = SimpleNamespace(patch_size=8, image_size=64)
    for layer, asked in ((-1, None), (2, 2)):
        method = TASK.method(preset("correspondence", "probe3d", "navi", layer=layer))
        assert method.needs(card, {"test": data})["test/patches"].tap.layer == asked


def test_what_sees_no_picture_names_the_same_place_or_the_middle(data: NaviPairs, tmp_path: Path) -> None:
    """Of points spread over the object, the nearest to that place of those that the other picture shows."""
    protocol = preset("correspondence", "probe3d", "navi", grid=GRID, matches=9)
    outcome = scored(Stored(protocol, {"test": data}, tmp_path, tokens=torch.randn(len(data.images), 8, 8, 3)))
    steps = np.arange(GRID) * SIZE // GRID + 0.5
    cells = np.array([(x, y) for y in steps for x in steps])
    for answer, place in enumerate((lambda at: at, lambda at: np.full(2, SIZE / 2))):
        least: list[Any] = []  # recalls, by which of several cells as near is taken
        most: list[Any] = []
        for pair in range(len(data)):
            carried, surface = data.carried(pair, cells), data.located(pair, cells)
            seen = np.flatnonzero(np.isfinite(carried).all(1))
            other = np.flatnonzero(np.isfinite(surface).all(1))
            errors = []
            for i in (seen[k * (len(seen) - 1) // 8] for k in range(9)):
                away = ((cells[other] - place(cells[i])) ** 2).sum(1)
                nearest = other[away == away.min()]
                errors.append(np.linalg.norm(carried[i] - surface[nearest], axis=1))
            for side, out in ((np.max, least), (np.min, most)):
                out.append(np.mean([np.mean([side(e) < m for e in errors]) for m in protocol.metres]))
        found = outcome.blind[answer]["mean recall"]
        assert (np.array(least) <= found + 1e-9).all() and (found <= np.array(most) + 1e-9).all()
        assert 0 < np.mean(found) < 1 and np.mean(np.equal(least, most)) >= 0.25


@pytest.mark.parametrize("matches", [40, 100])
def test_dense_matches_are_those_of_probe3ds_own_steps(data: NaviPairs, tmp_path: Path, matches: int) -> None:
    """mbanani/probe3d @ a1f1464 on the same features: places of the object in noise."""
    protocol = preset("correspondence", "probe3d", "navi", grid=GRID, matches=matches)
    noise = np.random.default_rng(0).normal(size=(len(data.images), 8, 8, 3))
    tokens = []
    for i in range(len(data.images)):
        shown = data._shown(i)[0][4::8, 4::8] - [0, 0, AWAY]
        tokens.append(np.nan_to_num(shown @ data.poses[i][:3, :3]) / RADIUS + 0.3 * noise[i])
    found = Stored(protocol, {"test": data}, tmp_path, tokens=torch.from_numpy(np.stack(tokens)).float())
    outcome = scored(found)
    theirs = probe3d(found, data)
    for name, number in theirs.items():
        assert value(outcome, name) == pytest.approx(number, abs=1e-4), name
    mean = np.mean([theirs[f"recall@{m:g} m"] for m in (0.01, 0.02, 0.05)])
    assert value(outcome, "mean recall") == pytest.approx(mean, abs=1e-4) and 5 < mean < 95
    assert value(outcome, "mean recall") < value(outcome, "ceiling of mean recall")
    assert outcome.n == 8 and outcome.main_metric == "mean recall"
    main = outcome.measurements[0]
    assert main.statistic.cluster == "target" and set(outcome.samples["target"]) == {"dino"}
    low, high = interval({**outcome.samples, "target": outcome.samples["id"]}, main.statistic)
    assert low < value(outcome, "mean recall") < high
    assert (outcome.chance(main) or 0) < value(outcome, "mean recall")


def test_an_encoder_of_true_surface_places_reaches_the_ceiling(data: NaviPairs, tmp_path: Path) -> None:
    """Places on a ball are told apart by their direction; every match is kept."""
    step = SIZE // GRID
    places = [data._shown(i)[0][::step, ::step] - [0, 0, AWAY] for i in range(len(data.images))]
    tokens = np.stack([np.nan_to_num(p @ data.poses[i][:3, :3]) for i, p in enumerate(places)])
    protocol = preset("correspondence", "probe3d", "navi", grid=GRID, matches=GRID * GRID)
    outcome = scored(Stored(protocol, {"test": data}, tmp_path, tokens=torch.from_numpy(tokens).double()))
    for name in ("mean recall", "recall@0.02 m", "recall@0.05 m"):
        assert value(outcome, name) == pytest.approx(value(outcome, f"ceiling of {name}"), abs=0.5)
    assert value(outcome, "recall@0.05 m") > 30


def test_data_without_cameras_are_refused_and_multiview_pairs_stay_in_their_scene(folder: Path) -> None:
    method = TASK.method(preset("correspondence", "probe3d", "navi"))
    with pytest.raises(UsageError, match="the data know no cameras"):
        method.needs(SimpleNamespace(image_size=64, patch_size=4), {"test": SimpleNamespace(posed=False)})  # type: ignore[arg-type]
    options = {"pairs": "multiview", "size": "64"}
    found = open_dataset("navi", folder, options).data("correspondence", "test")
    names = [[found.images.image_id(i).split("/")[1] for i in pair] for pair in found.pairs.tolist()]
    assert names == [["multiview_00_pixel_5"] * 2] * 8
    with pytest.raises(DataError, match="train"):
        open_dataset("navi", folder).data("correspondence", "train")
