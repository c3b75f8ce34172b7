"""Correspondence on `scenes`: two views against the renderer, and true surface coordinates at their ceiling."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from point_matches import INFO, Stored, fields, scored, value

from benchmark import run
from benchmark.errors import UsageError
from benchmark.registry import suites, tasks_on, units
from benchmark.statistics.paired import paired
from tasks.patch_matches import cells
from tasks.scenes.dataset import open_dataset as open_scenes
from tasks.scenes.layout import compose
from tasks.scenes.pairs import ScenePairs, carried, cast, degrees_between, matched, plane, projected, world
from tasks.scenes.render import render


def scene_pairs(**options: str) -> ScenePairs:
    return open_scenes(INFO, None, {"size": "48", "n_pairs": "16", **options}).data("correspondence", "test")


def test_rays_meet_what_the_renderer_draws() -> None:
    for index in (0, 1, 14, 21):
        layout, drawn = compose(0, index, "pairs"), render(0, index, 48, split="pairs")
        pixels = np.stack(np.meshgrid(np.arange(48) + 0.5, np.arange(48) + 0.5), -1).reshape(-1, 2)
        depth, number = (found.reshape(48, 48) for found in cast(layout, *plane(pixels, 48)))
        near = np.isfinite(depth)
        assert (number == drawn.instance).all() and near.mean() > 0.4
        np.testing.assert_allclose(depth[near], drawn.depth[near], rtol=1e-5)


def test_points_are_one_surface_seen_from_two_places() -> None:
    """Where both pictures show the object in its own colours, and no ray to a point is stopped before it."""
    hidden = total = 0
    for pair in range(24):
        first, second = (compose(0, 2 * pair + view, "pairs") for view in (0, 1))
        source, target, extent = matched(pair, 96)
        assert len(source) == 16 and 5 < extent <= 96
        u, v = plane(source, 96)
        depth, number = cast(first, u, v)
        assert (number == 1).all()
        points = carried(second, world(first.camera, u, v, depth))
        places, ahead = projected(second.camera, points, 96)
        np.testing.assert_allclose(places, target, atol=1e-9)
        seen, which = cast(second, *plane(target, 96))
        np.testing.assert_allclose(seen, ahead, atol=1e-4)
        assert (which == 1).all()
        pixels = np.stack(np.meshgrid(np.arange(0.5, 96, 3), np.arange(0.5, 96, 3)), -1).reshape(-1, 2)
        u, v = plane(pixels, 96)
        depth, number = cast(first, u, v)
        chosen = number == 1
        places, ahead = projected(second.camera, carried(second, world(first.camera, u, v, depth)[chosen]), 96)
        hidden += int((cast(second, *plane(places, 96))[0] < ahead - 1e-4).sum())
        total += int(chosen.sum())
    assert 0.1 < hidden / total < 0.6  # occlusion is there to be known


def test_the_ground_of_both_views_is_one() -> None:
    """A place on the ground has the texture's coordinates of the first view in the second."""
    second = compose(0, 5, "pairs")
    assert second.surroundings.turn is not None
    c, s, p, q = second.surroundings.turn
    places = np.array([[0.3, 0, 4.0], [-1.2, 0, 6.0]])
    there = carried(second, places)
    back = np.stack([c * there[:, 0] - s * there[:, 2] + p, there[:, 1], s * there[:, 0] + c * there[:, 2] + q], 1)
    np.testing.assert_allclose(back, places, atol=1e-12)
    assert abs(c * c + s * s - 1) < 1e-12 and compose(0, 4, "pairs").surroundings.turn is None


def test_pairs_of_scenes_are_pinned() -> None:
    source, target, extent = matched(3, 96)
    assert extent == 45 and source[[0, 15]].tolist() == [[47.5, 39.5], [32.5, 50.5]]
    assert target[[0, 15]] == pytest.approx(np.array([[61.800331, 32.904384], [42.892553, 45.815039]]), abs=1e-5)
    digests = [hashlib.sha256(render(0, i, 48, split="pairs").rgb.tobytes()).hexdigest()[:16] for i in (6, 7)]
    assert digests == ["5dcf4200e502ab79", "99ee59aee939c810"]


class AtCentres(ScenePairs):
    """Points at the centres of patches of 4 pixels of the source, so that an oracle's features there are theirs."""

    def points(self, pair: int) -> tuple[np.ndarray, np.ndarray]:
        first, second = (compose(0, 2 * pair + view, "pairs") for view in (0, 1))
        size = self.images.size
        source = cells(size // 4, size // 4, "centre") * size
        source = source[cast(first, *plane(source, size))[1] == 1]
        u, v = plane(source, size)
        points = carried(second, world(first.camera, u, v, cast(first, u, v)[0]))
        target, ahead = projected(second.camera, points, size)
        kept = np.abs(cast(second, *plane(target, size))[0] - ahead) < 1e-4
        return source[kept], target[kept]


@pytest.mark.parametrize("patch", [1, 4])
def test_true_surface_coordinates_reach_the_ceiling(patch: int, tmp_path: Path) -> None:
    """Features are points of the world on a sphere so large that cosines fall as distances grow."""
    data = scene_pairs(n_pairs="8")
    if patch > 1:
        data = AtCentres(data.images)
    side, radius, points = 48 // patch, 1e3, []
    places = cells(side, side, "centre") * 48
    for pair in range(len(data)):
        for view in (0, 1):
            layout = compose(0, 2 * pair + view, "pairs")
            u, v = plane(places, 48)
            at = world(layout.camera, u, v, cast(layout, u, v)[0])
            at = np.where(np.isfinite(at), at, -300.0)
            at = at if view else carried(compose(0, 2 * pair + 1, "pairs"), at)
            points.append(np.concatenate([at, np.sqrt(radius**2 - (at**2).sum(1, keepdims=True))], 1))
    card = SimpleNamespace(name="oracle", image_size=48, patch_size=patch, depth=1)
    grid = torch.from_numpy(np.stack(points).reshape(-1, side, side, 4))
    outcome = scored(
        Stored(fields("fast", metres=(0.02, 0.1, 0.25)), {"test": data}, tmp_path, tokens=grid, card_=card)
    )
    names = ["recall@0.02 m", "recall@0.1 m", "recall@0.25 m", "median error"] + ["PCK@0.1"] * (patch == 1)
    for name in names:
        assert value(outcome, name) == pytest.approx(value(outcome, f"ceiling of {name}"), abs=1e-6), name
    assert value(outcome, "recall@0.1 m") > (95 if patch == 1 else 5) and value(outcome, "recall@0.02 m") < 100
    assert value(outcome, "PCK@0.1") <= value(outcome, "ceiling of PCK@0.1")


def test_an_answer_in_the_sky_is_a_miss_of_any_distance(tmp_path: Path) -> None:
    data = scene_pairs(n_pairs="4")
    alike = torch.ones(4, 6, 6, 2)  # so the first patch, in the sky
    outcome = scored(Stored(fields("fast"), {"test": data}, tmp_path, tokens=alike, card_=SimpleNamespace(
        name="none", image_size=48, patch_size=8, depth=1)))  # fmt: skip
    assert value(outcome, "recall@0.5 m") == 0 and value(outcome, "median error") > 4.9
    assert value(outcome, "ceiling of median error") < 0.5 and value(outcome, "mean error") > 10


def test_words_of_scenes_mean_what_they_meant() -> None:
    assert [str(unit) for unit in units("scenes")] == suites()["scenes"]["units"] and len(units("scenes")) == 9
    more = suites()["scenes-all"]["units"]
    assert more[:9] == suites()["scenes"]["units"]
    assert sorted(more) == sorted(f"{task}/scenes" for task in tasks_on("scenes"))
    assert "correspondence" in tasks_on("scenes") and [str(u) for u in units("correspondence/scenes")] == [
        "correspondence/scenes"
    ]
    assert [str(unit) for unit in units("spair")] == ["correspondence/spair"]
    assert "correspondence/spair" in suites()["dense"]["units"]
    assert set(scene_pairs(n_pairs="60").views) == {"0–20°", "20–40°", "40–70°"}
    with pytest.raises(UsageError, match="n_pairs=601"):
        open_scenes(INFO, None, {"n_pairs": "601"})


def test_what_has_learnt_nothing_stays_below_the_embedded_model(tmp_path: Path) -> None:
    """On 120 pairs of `scenes`, by more than the paired interval."""
    words: dict[str, Any] = {"results": tmp_path / "r", "cache": tmp_path / "c", "limit": 120, "workers": 0}
    report = run(["tipsv2-mini", "random-vit", "pixels"], "correspondence/scenes", check=False, device="cpu", **words)
    trained, *others = report.rows
    for other in others:
        found = paired(other.samples, trained.samples, trained.statistic(), resamples=1000, seed=0)
        assert found.delta > 0 and found.ci95[0] > 0, other.model
    assert trained.main.value > 20


def test_the_angle_between_two_cameras_is_that_of_their_rotation() -> None:
    """By matrices: each camera leans about x, the second view's world is turned about y."""

    def layout(lean: float, turn: float | None) -> Any:
        of = None if turn is None else (np.cos(turn), np.sin(turn), 0.3, 4.0)
        camera = SimpleNamespace(cos=np.cos(lean), sin=np.sin(lean))
        return SimpleNamespace(camera=camera, surroundings=SimpleNamespace(turn=of))

    def about(axis: int, angle: float) -> np.ndarray:
        c, s = np.cos(angle), np.sin(angle)
        plain = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        return np.roll(plain, axis, (0, 1))

    for lean, other, turn in ((0.3, 0.1, 0.7), (0.5, 0.5, 0.2), (0.2, 0.6, 0.0), (0.1, 0.4, 2.0)):
        rotation = about(0, other).T @ about(1, turn) @ about(0, lean)
        expected = np.degrees(np.arccos((np.trace(rotation) - 1) / 2))
        assert degrees_between(layout(lean, None), layout(other, turn)) == pytest.approx(expected, abs=1e-9)
    assert degrees_between(layout(0.4, None), layout(0.4, 0.0)) == pytest.approx(0, abs=1e-5)
