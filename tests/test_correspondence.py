"""Correspondence against the definition of PCK by hand, and against plain readings of Probe3D's, SD-DINO's and
GeoAware's evaluations on the same features."""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import miniatures as mini
import numpy as np
import pytest
import torch
from command import told
from point_matches import GRID, PATCH, SIDE, Stored, fields, scored, tokens, value
from torch.nn.functional import grid_sample, normalize
from training_context import Ramps, preset

from benchmark.errors import DataError
from benchmark.images.drawing import RIGHT
from benchmark.images.samples import look_at_samples
from benchmark.images.sheets import drawn
from benchmark.registry import open_dataset
from benchmark.statistics.bootstrap import interval
from tasks.correspondence import TASK
from tasks.datasets.pairs import PairSet
from tasks.patch_matches import Framed, PatchMatches, Square, ceiling, cells, whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("spair")
    mini.spair(found)
    return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The miniature is the whole of SPair-71k."""
    monkeypatch.setattr("tasks.datasets.spair.expected", lambda *_: 24)


def context(folder: Path, protocol: PatchMatches, **more: Any) -> Any:
    """The miniature with random features that have something of their place."""
    data = open_dataset("spair", folder).data("correspondence", "test")
    return Stored(protocol, {"test": data}, folder, tokens=tokens(len(data.images), GRID), **more)


def groups() -> defaultdict[Any, list[Any]]:
    return defaultdict(list)


def pair_annotations(folder: Path) -> list[dict[str, Any]]:
    place = folder / "spair/SPair-71k/PairAnnotation/test"
    return [json.loads(path.read_text()) for path in sorted(place.glob("*.json"))]


def image_rows(found: Any) -> dict[str, int]:
    images = found.data["test"].images
    return {images.image_id(i): i for i in range(len(images))}


def both(found: Any, row: dict[str, Any]) -> list[torch.Tensor]:
    """[h, w, D] of a pair, normalised."""
    rows = image_rows(found)
    return [
        normalize(found.tokens[rows[f"JPEGImages/{row['category']}/{row[f'{side}_imname']}"]], dim=-1)
        for side in ("src", "trg")
    ]


def mean_of_means(groups: dict[str, list[float]]) -> float:
    return 100 * float(np.mean([np.mean(group) for group in groups.values()]))


def test_pck_is_its_definition_by_hand_per_point_and_per_image(folder: Path) -> None:
    """Nearest patch of the stretched picture, distances in the target's pixels, the box's longer side."""
    found = context(folder, fields("fast", source="patch"))
    outcome = scored(found)
    for alpha in (0.1, 0.05, 0.01):
        points, images = groups(), groups()
        for row in pair_annotations(folder):
            here, there = both(found, row)
            (w0, h0, _), (w1, h1, _) = row["src_imsize"], row["trg_imsize"]
            left, top, right, bottom = row["trg_bndbox"]
            hits = []
            for (x, y), (u, v) in zip(row["src_kps"], row["trg_kps"]):
                token = here[int(y / h0 * GRID), int(x / w0 * GRID)]
                best = max(((there[r, c] @ token).item(), -r, -c) for r in range(GRID) for c in range(GRID))
                r, c = -best[1], -best[2]
                at = (c + 0.5) / GRID * w1, (r + 0.5) / GRID * h1
                hits.append(np.hypot(at[0] - u, at[1] - v) <= alpha * max(right - left, bottom - top))
            points[row["category"]] += hits
            images[row["category"]].append(float(np.mean(hits)))
        assert value(outcome, f"PCK@{alpha}") == pytest.approx(mean_of_means(points), abs=1e-9)
        assert value(outcome, f"PCK@{alpha} per image") == pytest.approx(mean_of_means(images), abs=1e-9)
        everything = scored(context(folder, fields("fast", source="patch", average="all")))
        assert value(everything, f"PCK@{alpha}") == pytest.approx(100 * np.mean([*chain(*points.values())]))
        assert value(everything, f"PCK@{alpha} per image") == pytest.approx(100 * np.mean([*chain(*images.values())]))
    assert 5 < value(outcome, "PCK@0.1") < 95 and value(outcome, "PCK@0.1") != value(outcome, "PCK@0.1 per image")
    assert outcome.details["per_category_PCK"].keys() == {"bird", "cat"} and outcome.details["pairs"] == 24
    assert (
        TASK.refusal(found.card, replace(found.protocol, layer=9)) == "none has 4 layers, the protocol asks for layer 9"
    )


@pytest.mark.parametrize("grid", [GRID, 25])
def test_probe3d_is_its_own_evaluation_on_the_same_features(grid: int, folder: Path) -> None:
    """mbanani/probe3d @ a1f1464, evaluate_spair_correspondence.py step by step, all of a category's pairs."""
    found = context(folder, fields("probe3d", pairs=0))
    found.tokens = tokens(8, grid)
    recall, view = groups(), groups()
    for row in pair_annotations(folder):
        here, there = (grid_.permute(2, 0, 1) for grid_ in both(found, row))
        kps = []
        for side in ("src", "trg"):
            at, longest = torch.tensor(row[f"{side}_kps"]).int(), max(row[f"{side}_imsize"][:2])
            at[:, :2] = at[:, :2] * SIDE / longest  # in place, so cut to integers
            kps.append(at.float() / SIDE)
        at = (kps[0] * 2 - 1)[None, None]
        sampled = grid_sample(here[None], at, mode="bilinear", align_corners=True)[0, :, 0].T
        heat = torch.einsum("kf,fhw->khw", sampled, there).flatten(1).argmax(1)
        guess = torch.stack([heat % grid, heat // grid], -1).float() / grid
        left, top, right, bottom = row["trg_bndbox"]
        scale = max(right - left, bottom - top) / max(row["trg_imsize"][:2])
        hits = ((guess - kps[1]).norm(dim=-1) / scale < 0.1).tolist()
        recall[row["category"]] += hits
        view[row["viewpoint_variation"], row["category"]] += hits
    outcome = scored(found)
    assert value(outcome, "PCK@0.1") == pytest.approx(mean_of_means(recall), abs=1e-6) and value(outcome, "PCK@0.1") > 3
    for d in (0, 1, 2):
        mine = value(outcome, f"PCK@0.1, view {d}")
        assert mine == pytest.approx(mean_of_means({c: hits for (v, c), hits in view.items() if v == d}), abs=1e-6)


def padded(row: dict[str, Any], side: str) -> tuple[np.ndarray, float]:
    """SD-DINO's preprocess_kps_pad: points in a square of SIDE pixels around the picture, and the scale."""
    width, height = row[f"{side}_imsize"][:2]
    scale = SIDE / max(width, height)
    points = np.array(row[f"{side}_kps"], float) * scale
    if height < width:
        points[:, 1] += int((SIDE - int(np.around(SIDE * height / width))) / 2)
    elif width < height:
        points[:, 0] += int((SIDE - int(np.around(SIDE * width / height))) / 2)
    return points, scale


@pytest.mark.parametrize("window", [0, 2])
def test_sd_dino_and_geoaware_are_their_own_evaluations_on_the_same_features(window: int, folder: Path) -> None:
    """Junyi42/sd-dino @ b85df18 (per point) and Junyi42/GeoAware-SC @ 99fd6b6 (per image, windowed soft-argmax: patches
    outside of the window weigh exp(0)). Their borders are rounded to pixels of the square, ours to those of the
    picture: a point moves by less than one pixel, which few thresholds notice."""
    found = context(folder, fields("sd-dino", window=window, average="all" if window else "categories"))
    found.tokens = normalize(found.tokens, dim=-1)
    points, images = groups(), []
    for row in pair_annotations(folder):
        here, there = both(found, row)
        (source, _), (target, scale) = padded(row, "src"), padded(row, "trg")
        cell = (GRID / SIDE * source).astype(np.int32)
        cosines = here[cell[:, 1], cell[:, 0]] @ there.flatten(0, 1).T
        best = cosines.argmax(1).numpy()
        x, y = (best % GRID).astype(float), (best // GRID).astype(float)
        if window:
            rows, columns = np.divmod(np.arange(GRID * GRID), GRID)
            for k, at in enumerate(best):
                near = (abs(rows - at // GRID) <= window) & (abs(columns - at % GRID) <= window)
                weights = (cosines[k].double() * torch.from_numpy(near) / 0.02).softmax(0).numpy()
                y[k], x[k] = weights @ rows, weights @ columns
        guess = np.stack([x, y], 1) * PATCH + PATCH // 2
        left, top, right, bottom = row["trg_bndbox"]
        hits = np.linalg.norm(guess - target, axis=1) < 0.1 * max(right - left, bottom - top) * scale
        points[row["category"]] += hits.tolist()
        images.append(hits.mean())
    outcome, total = scored(found), sum(map(len, points.values()))
    name, theirs = ("PCK@0.1 per image", 100 * np.mean(images)) if window else ("PCK@0.1", mean_of_means(points))
    assert value(outcome, name) == pytest.approx(theirs, abs=2.5 * 100 / total) and 3 < theirs < 97


def test_a_soft_argmax_of_a_narrow_temperature_is_the_best_patch(folder: Path) -> None:
    hard, soft = (scored(context(folder, fields("fast", window=w, temperature=1e-6))) for w in (0, 3))
    np.testing.assert_allclose(soft.samples["pixels"], hard.samples["pixels"], atol=1e-6)
    wide = scored(context(folder, fields("fast", window=3, temperature=0.1)))
    assert not np.allclose(wide.samples["pixels"], hard.samples["pixels"], atol=0.5)


@pytest.mark.parametrize("place", ["centre", "corner"])
def test_no_patch_lies_nearer_than_the_ceiling(place: str) -> None:
    rng = np.random.default_rng(0)
    shares, all_places = rng.uniform(0, 1, (200, 2)), cells(5, 7, place)
    best = ceiling(shares, 5, 7, place)
    nearest = np.linalg.norm(shares[:, None] - all_places[None], axis=-1).min(1)
    np.testing.assert_allclose(np.linalg.norm(shares - best, axis=1), nearest, atol=1e-12)
    stretched = Square("stretched", 30, 90)  # where a share is not as many pixels on both sides
    pixels = [np.linalg.norm(stretched.pixels(shares) - stretched.pixels(one), axis=1) for one in all_places]
    mine = np.linalg.norm(stretched.pixels(shares) - stretched.pixels(best), axis=1)
    np.testing.assert_allclose(mine, np.min(pixels, axis=0), atol=1e-9)


def test_a_distance_of_exactly_the_threshold_is_a_hit(tmp_path: Path) -> None:
    """All patches alike: the answer is the middle of the first, (4, 4) of 64 pixels, 3 pixels off (7, 4)."""
    points = np.array([[20.0, 20.0]]), np.array([[7.0, 4.0]])
    for extent, hit in ((30, 100), (29.99, 0)):
        data = PairSet(Ramps(2, 0, 64, 64), np.array([[0, 1]]), [points], [extent], ["thing"])
        outcome = scored(Stored(fields("fast"), {"test": data}, tmp_path, tokens=torch.ones(2, 8, 8, 2)))
        assert value(outcome, "PCK@0.1") == hit and value(outcome, "PCK@0.05") == 0
        assert value(outcome, "ceiling of PCK@0.1") == hit and outcome.samples["pixels"].tolist() == [3]


def test_scores_stay_below_ceilings_and_chance_sees_no_picture(folder: Path) -> None:
    outcome = scored(context(folder, fields("fast")))
    for name in ("PCK@0.1", "PCK@0.05", "PCK@0.01", "PCK@0.1 per image"):
        assert value(outcome, name) <= value(outcome, f"ceiling of {name}")
    rows, middle, same = pair_annotations(folder), groups(), groups()
    for row in rows:
        size = np.array([row[f"{side}_imsize"][:2] for side in ("src", "trg")])
        left, top, right, bottom = row["trg_bndbox"]
        truth, limit = np.array(row["trg_kps"]), 0.1 * max(right - left, bottom - top)
        middle[row["category"]] += (np.linalg.norm(truth - size[1] / 2, axis=1) <= limit).tolist()
        moved = np.array(row["src_kps"]) / size[0] * size[1]
        same[row["category"]] += (np.linalg.norm(truth - moved, axis=1) <= limit).tolist()
    pck = outcome.measurements[0]
    assert outcome.chance(pck) == pytest.approx(max(mean_of_means(middle), mean_of_means(same)))
    one = outcome.samples["target"]
    assert len(set(one.tolist())) == 8 and pck.statistic.cluster == "target"
    low, high = interval(outcome.samples, pck.statistic)
    assert low < value(outcome, "PCK@0.1") < high


def test_points_are_cut_to_whole_pixels_of_the_picture_and_of_the_square() -> None:
    square = Square("corner", 30, 40)
    found = whole(np.array([[13.7, 20.2]]), square, 100)
    np.testing.assert_allclose(found, [[32 * 0.4, 50 * 0.4]])  # 13 · 2.5 = 32.5, 20 · 2.5 = 50
    np.testing.assert_allclose(square.shares(np.array([[40.0, 30.0]])), [[1, 0.75]])
    centre = Square("centre", 30, 40)
    np.testing.assert_allclose(centre.shares(np.array([[0.0, 0.0]])), [[0, 0.125]])
    np.testing.assert_allclose(centre.pixels(centre.shares(np.array([[7.0, 3.0]]))), [[7, 3]])


def test_framed_pictures_keep_every_pixel_and_are_other_pictures(folder: Path) -> None:
    images = open_dataset("spair", folder).data("correspondence", "test").images
    picture = images.load(0)
    height, width = picture.shape[:2]
    for frame, fill in (("corner", 255), ("centre", 0)):
        framed = Framed(images, frame)  # type: ignore[arg-type]
        square, at = framed.load(0), Square(frame, height, width)  # type: ignore[arg-type]
        assert square.shape == (60, 60, 3) and framed.image_id(0) == images.image_id(0)
        assert (square[at.top : at.top + height, at.left : at.left + width] == picture).all()
        outside = np.ones((60, 60), bool)
        outside[at.top : at.top + height, at.left : at.left + width] = False
        assert (square[outside] == fill).all() and outside.any()
    assert len({images.digest, Framed(images, "corner").digest, Framed(images, "centre").digest}) == 3


def test_drawn_pairs_are_so_many_of_each_category_and_the_same_again(folder: Path) -> None:
    first, again = (scored(context(folder, fields("probe3d", pairs=5))) for _ in range(2))
    assert first.details["pairs"] == 10 and (first.samples["id"] == again.samples["id"]).all()
    assert scored(context(folder, fields("probe3d"))).details["pairs"] == 24  # there are fewer than 200


def test_a_part_of_the_pairs_holds_their_pictures_alone(folder: Path) -> None:
    data = open_dataset("spair", folder).data("correspondence", "test")
    part = data.take([20, 3])
    assert len(part) == 2 and len(part.images) == 4 and part.digest != data.digest
    for new, old in enumerate((20, 3)):
        assert (part.points(new)[1] == data.points(old)[1]).all() and part.extent(new) == data.extent(old)
        ids = [[of.images.image_id(int(i)) for i in of.pairs[at]] for of, at in ((part, new), (data, old))]
        assert ids[0] == ids[1] and part.categories[new] == data.categories[old] and part.views[new] == data.views[old]
    gone = data.images.image_id(0)
    left = data.without({gone})
    assert len(left) == 24 - 6 and gone not in {left.images.image_id(i) for i in range(len(left.images))}


def test_spair_is_read_from_its_folder_and_from_its_archive(folder: Path, tmp_path: Path) -> None:
    data = open_dataset("spair", folder).data("correspondence", "test")
    row = pair_annotations(folder)[5]
    assert len(data) == 24 and len(data.images) == 8 and set(data.categories) == {"bird", "cat"}
    assert data.points(5)[0].tolist() == row["src_kps"] and data.points(5)[1].tolist() == row["trg_kps"]
    left, top, right, bottom = row["trg_bndbox"]
    assert data.extent(5) == max(right - left, bottom - top) and data.views[5] == str(row["viewpoint_variation"])
    (tmp_path / "spair").mkdir()
    with tarfile.open(tmp_path / "spair/SPair-71k.tar", "w") as archive:
        archive.add(folder / "spair/SPair-71k", "SPair-71k")
    packed = open_dataset("spair", tmp_path).data("correspondence", "test")
    assert packed.points(7)[0].tolist() == data.points(7)[0].tolist()
    assert (packed.images.load(3) == data.images.load(3)).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"src_kps": [[1, 2]]}, "1 and"),
        ({"trg_bndbox": [5, 5, 5, 5]}, "a box of 0 pixels"),
        ({"viewpoint_variation": 7}, "IndexError"),
        ({"trg_kps": "many"}, "ValueError"),
    ],
)
def test_a_damaged_annotation_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    mini.spair(tmp_path, 2)
    path = sorted((tmp_path / "spair/SPair-71k/PairAnnotation/test").glob("*.json"))[1]
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=f"{path.name}.*is no SPair pair.*{said}"):
        open_dataset("spair", tmp_path).data("correspondence", "test")


def test_a_picture_of_another_size_than_its_points_is_named_and_a_damaged_one_leaves_its_pairs_out(
    tmp_path: Path, capsys: Any
) -> None:
    root = mini.spair(tmp_path)
    damaged = root / "JPEGImages/cat/2008_000011.jpg"
    damaged.write_bytes(damaged.read_bytes()[:60])
    run = ("run", "--model", "pixels", "--task", "spair", "--data", str(tmp_path), "--no-check", "--max-bad", "1")
    code, out, err = told(capsys, *run, "--results", str(tmp_path / "rows"), "--json")
    row = json.loads(out.splitlines()[0])
    assert code == 0 and row["metrics"]["PCK@0.1"]["value"] >= 0 and row["details"]["pairs"] == 24 - 6, err
    mini.save_jpeg(root / "JPEGImages/cat/2008_000012.jpg", 1, 20, 20)
    with pytest.raises(DataError, match=r"2008_000012.jpg: is 20x20, its annotation says 48x48"):
        open_dataset("spair", tmp_path).data("correspondence", "test")


def test_verify_counts_pairs_and_pictures(folder: Path, capsys: Any, official: Any) -> None:
    official("spair", counts={"test": 24})
    code, out, _ = told(capsys, "data", "verify", "spair", "--data", str(folder), "--workers", "1")
    points = sum(len(row["src_kps"]) for row in pair_annotations(folder))
    assert code == 0 and "correspondence test: ok, 24 pairs, as official" in out and f"{points} points" in out
    assert "correspondence test images: ok, 8 pictures" in out and "40x60" in out


def test_pictures_of_the_best_and_the_worst_pair_are_handed_back(folder: Path) -> None:
    found = context(folder, fields("fast"))
    found.keep_predictions = 1
    outcome = scored(found)
    files = outcome.files
    assert len(files) == 3 and {name.partition("-1_")[0] for name in files} == {
        "pictures/best", "pictures/median", "pictures/worst"
    }  # fmt: skip
    assert all(picture.startswith(b"\x89PNG") for picture in files.values())
    told_in = {name.split("_")[0]: float(name.split("_")[1].removeprefix("PCK-")) for name in files}
    shares = 100 * outcome.samples["image@0.1"]
    shares = np.sort(shares[np.isfinite(shares)])
    assert told_in["pictures/best-1"] == shares[-1] > shares[0] == told_in["pictures/worst-1"]
    assert told_in["pictures/median-1"] in shares[1:-1] and 0 < told_in["pictures/median-1"] < 100


def test_pairs_are_shown_before_a_model_is_loaded(folder: Path) -> None:
    data = open_dataset("spair", folder).data("correspondence", "test")
    sheet = look_at_samples(data, "title", 2)
    assert sheet.facts == ["8 pictures, 2 categories"] and sheet.lines[1].words[0].text == "cat"
    green = (sheet.lines[0].panels[0] == RIGHT).all(-1)
    assert green.sum() > 50 and len(drawn([sheet])) > 1000


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="names a threshold twice"):
        fields("fast", metres=(0.1, 0.1))
    with pytest.raises(ValueError, match="view_size = 800 does nothing beside view_patches"):
        fields("probe3d", view_size=800, view_patches=64)


def test_dinov3_gives_every_encoder_one_grid_and_probe3d_one_size() -> None:
    """896 and 1024 pixels for patches of 14 and 16; 800 cut to whole patches."""
    mine = preset("correspondence", "dinov3"), preset("correspondence", "probe3d"), preset("correspondence", "fast")
    assert [[p.side(224, patch) for patch in (14, 16)] for p in mine] == [[896, 1024], [798, 800], [224, 224]]
