"""A rendered scene: the same bytes everywhere, and ground truth that agrees with itself."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmark.errors import UsageError
from tasks.scenes import CLASS_NAMES, OBJECTS, STUFF
from tasks.scenes.canvas import TAN_HALF_VIEW
from tasks.scenes.golden import GOLDEN_SCENES, measure
from tasks.scenes.layout import compose
from tasks.scenes.render import MIN_SHARE, Scene, render
from tasks.scenes.rng import Stream
from tasks.scenes.splits import SPLITS
from tasks.scenes.surroundings import MOUNTAINS
from tasks.scenes.waves import wave

SIZE = 96


@pytest.fixture(scope="module")
def scenes() -> list[tuple[int, Scene]]:
    return [(i, render(0, i, SIZE)) for i in range(40)]


def rays(index: int, size: int = SIZE) -> np.ndarray:
    """[S, S, 3] world directions of the pixels of a train scene, written independently of the renderer."""
    camera = compose(0, index, "train").camera
    offset = ((np.arange(size) + 0.5) / size * 2 - 1) * TAN_HALF_VIEW
    u, v = np.meshgrid(offset, -offset)
    turn = np.array([[1, 0, 0], [0, camera.cos, -camera.sin], [0, camera.sin, camera.cos]])
    return np.stack([u, v, np.ones_like(u)], -1) @ turn.T


def test_golden_scenes_have_their_pinned_bytes() -> None:
    assert measure(list(GOLDEN_SCENES)) == GOLDEN_SCENES


def test_scenes_of_every_split_and_of_other_sizes_have_their_bytes() -> None:
    """sha256 over the digests of 72 scenes, as the renderer of commit 7539bc8 gave them."""
    groups = [("train", 8), ("train", 33), ("train", 48), ("labels-train", 40), ("retrieval", 64), ("pretrain", 56)]
    names = [f"{split}/{index}/{size}" for split, size in groups for index in range(100, 148, 4)]
    assert (
        hashlib.sha256(json.dumps(measure(names)).encode()).hexdigest()
        == "2a78d6dcd0b372b2b748fd64d865f1cf9994e1ff49d21bb7a17673b5ebc8dcc8"
    )


def test_bytes_do_not_depend_on_the_vector_unit() -> None:
    core = "numpy._core" if int(np.__version__.split(".")[0]) > 1 else "numpy.core"
    numpy_core = importlib.import_module(f"{core}._multiarray_umath")
    usable = [name for name in numpy_core.__cpu_dispatch__ if numpy_core.__cpu_features__[name]]
    code = (
        "import json; from tasks.scenes.golden import GOLDEN_SCENES, measure;"
        f"from {core}._multiarray_umath import __cpu_features__ as f;"
        "print(json.dumps([measure(list(GOLDEN_SCENES)), [k for k, v in f.items() if v]]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    environment["NPY_DISABLE_CPU_FEATURES"] = " ".join(usable)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    digests, left = json.loads(done.stdout)
    assert not set(left) & set(usable)
    assert digests == GOLDEN_SCENES


def test_normals_are_unit_and_face_the_camera(scenes: list[tuple[int, Scene]]) -> None:
    for index, scene in scenes:
        surface = np.isfinite(scene.depth)
        lengths = np.linalg.norm(scene.normals[surface].astype(float), axis=-1)
        np.testing.assert_allclose(lengths, 1, atol=1e-6)
        assert (scene.normals[~surface] == 0).all()
        directions = rays(index)
        camera = compose(0, index, "train").camera
        x, down, z = np.moveaxis(scene.normals, -1, 0)
        world = np.stack([x, -down * camera.cos - z * camera.sin, z * camera.cos - down * camera.sin], -1)
        assert ((world * directions).sum(-1)[surface] < 1e-6).all(), index


def test_normals_agree_with_differences_of_back_projected_depth() -> None:
    size, checked = 384, 0
    offset = ((np.arange(size) + 0.5) / size * 2 - 1) * TAN_HALF_VIEW
    for index in range(6):
        scene = render(0, index, size)
        points = np.stack(np.broadcast_arrays(offset[None], offset[:, None], 1.0), -1) * scene.depth[..., None]
        with np.errstate(invalid="ignore"):
            across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
            normal = np.cross(across, down)
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        n = scene.normals
        steady = np.ones((size - 2, size - 2), bool)  # interiors: neighbours of one surface, almost of one normal
        for rows, columns in ((slice(2, None), slice(1, -1)), (slice(0, -2), slice(1, -1)),
                              (slice(1, -1), slice(2, None)), (slice(1, -1), slice(0, -2))):  # fmt: skip
            steady &= (n[rows, columns] * n[1:-1, 1:-1]).sum(-1) > 0.998
            steady &= scene.instance[rows, columns] == scene.instance[1:-1, 1:-1]
            with np.errstate(invalid="ignore"):
                steady &= np.abs(scene.depth[rows, columns] - scene.depth[1:-1, 1:-1]) < 0.03 * scene.depth[1:-1, 1:-1]
        cosine = -(normal * n[1:-1, 1:-1]).sum(-1)[steady]
        assert (np.abs(cosine) > 0.995).mean() > 0.995, index
        checked += int(steady.sum())
    assert checked > 200_000


def test_back_projected_points_lie_on_the_planes(scenes: list[tuple[int, Scene]]) -> None:
    for index, scene in scenes:
        layout = compose(0, index, "train")
        with np.errstate(invalid="ignore"):
            world = rays(index) * scene.depth[..., None] + np.array([0, layout.camera.height, 0])
        for name in ("grass", "sand", "snow", "road", "floor", "sea"):
            on = scene.semantic == CLASS_NAMES.index(name)
            np.testing.assert_allclose(world[on][:, 1], 0, atol=1e-4)
        on = scene.semantic == CLASS_NAMES.index("mountain")
        np.testing.assert_allclose(world[on][:, 2], MOUNTAINS, atol=1e-4)
        on = scene.semantic == CLASS_NAMES.index("wall")
        if on.any():
            gaps = [np.abs(world[on] @ np.array([a, 0, b]) - w) for a, b, w in layout.surroundings.walls]
            assert np.min(gaps, axis=0).max() < 1e-4
        assert (scene.depth[np.isfinite(scene.depth)] > 0.5).all()


def test_back_projected_points_lie_on_the_balls(scenes: list[tuple[int, Scene]]) -> None:
    checked = 0
    for index, scene in scenes:
        layout = compose(0, index, "train")
        for number, item in enumerate(layout.items, 1):
            on = scene.instance == number
            if item.look.category != "ball" or not on.any():
                continue
            world = rays(index)[on] * scene.depth[on][:, None] + np.array([0, layout.camera.height, 0])
            x, y, z = (world - np.array([item.x, 0, item.z])).T
            half = item.look.size * np.asarray(item.look.scale) / 2
            local = np.stack([item.cos * x - item.sin * z, y - half[1], item.sin * x + item.cos * z], -1) / half
            np.testing.assert_allclose(np.linalg.norm(local, axis=-1), 1, atol=1e-4)
            checked += 1
    assert checked >= 3


def test_instances_and_classes_agree(scenes: list[tuple[int, Scene]]) -> None:
    for index, scene in scenes:
        layout = compose(0, index, "train")
        assert ((scene.instance > 0) == (scene.semantic >= len(STUFF))).all()
        for number, item in enumerate(layout.items, 1):
            labels = np.unique(scene.semantic[scene.instance == number])
            assert labels.tolist() in ([], [CLASS_NAMES.index(item.look.category)])
        assert (np.isinf(scene.depth) == (scene.semantic == CLASS_NAMES.index("sky"))).all()


def test_twice_the_size_shows_the_same_classes() -> None:
    for index in range(10):
        small, large = render(0, index, 64).semantic, render(0, index, 128).semantic
        blocks = large.reshape(64, 2, 64, 2).transpose(0, 2, 1, 3).reshape(64, 64, 4)
        uniform = (blocks == blocks[..., :1]).all(-1)
        assert uniform.mean() > 0.9
        assert (blocks[..., 0] == small)[uniform].mean() > 0.996  # a mast may pass between four pixel centres


def test_captions_name_what_is_visible_and_nothing_else(scenes: list[tuple[int, Scene]]) -> None:
    for _, scene in scenes:
        present = {CLASS_NAMES[i] for i in np.unique(scene.semantic)}
        for text in (scene.alt, scene.short, scene.long):
            words = set(text.replace(".", " ").replace(",", " ").split())
            assert words & set(CLASS_NAMES) <= present | {"sky"}, text
        for thing in scene.objects:
            assert thing.pixels >= MIN_SHARE * SIZE * SIZE
            assert thing.category in scene.short and thing.category in scene.long


def test_left_and_right_in_long_captions_are_those_of_the_picture(scenes: list[tuple[int, Scene]]) -> None:
    checked = 0
    for _, scene in scenes:
        columns = {thing.category: thing.column for thing in scene.objects}
        for clause in scene.long.split(".")[0].split(", "):
            for words, sign in ((" to the left of ", 1), (" to the right of ", -1)):
                if words in clause:
                    first, second = (part.split()[-1] for part in clause.split(words))
                    assert sign * columns[first] < sign * columns[second]
                    checked += 1
    assert checked > 10


def test_centred_pictures_show_their_class_largest() -> None:
    for split in ("labels-train", "labels-test"):
        for index in range(36):
            scene = render(0, index, 48, split=split)
            largest = max(scene.objects, key=lambda thing: thing.pixels)
            assert largest.category == OBJECTS[index % len(OBJECTS)]


def test_retrieval_views_share_the_object_and_nothing_else() -> None:
    views = [compose(0, index, "retrieval") for index in range(8)]
    first, second = views[:4], views[4:]
    assert len({view.items[0].look for view in first}) == 1
    assert first[0].items[0].look != second[0].items[0].look
    assert len({(view.items[0].cos, view.items[0].z) for view in first}) == 4
    assert len({view.sun for view in first}) == len({view.surroundings for view in first}) == 4


def test_no_two_scenes_of_any_splits_are_alike() -> None:
    """Layouts hold continuous draws: equal ones mean a reused stream."""
    seen: set[int] = set()
    total = 0
    for name, split in SPLITS.items():
        for index in range(split.n or 3000):
            layout = compose(0, index, name)
            seen.add(hash((layout.sun, layout.camera, layout.surroundings.phases)))
            total += 1
    assert len(seen) == total > 9000


def test_seeds_give_other_scenes() -> None:
    assert (render(0, 3, 32).rgb != render(1, 3, 32).rgb).any()


def test_bad_arguments_are_told_in_one_line() -> None:
    with pytest.raises(UsageError, match="Did you mean 'train'"):
        render(0, 0, split="trian")
    with pytest.raises(UsageError, match="size 4"):
        render(0, 0, 4)


def test_random_stream_is_even_and_pinned() -> None:
    rng = Stream(1, 2, 3)
    draws = np.array([rng.uniform() for _ in range(20_000)])
    assert abs(draws.mean() - 0.5) < 0.01 and abs(draws.std() - 12**-0.5) < 0.005
    assert Stream(0).bits() != Stream(0, 0).bits() != Stream(1).bits()
    field = Stream(7).field(50_000)
    bits = np.unpackbits(field.view(np.uint8)).reshape(-1, 64).mean(0)
    assert np.abs(bits - 0.5).max() < 0.015


def test_wave_is_close_to_a_sine() -> None:
    x = np.linspace(-3, 3, 1001)
    np.testing.assert_allclose(wave(x), np.sin(2 * np.pi * x), atol=2e-3)
