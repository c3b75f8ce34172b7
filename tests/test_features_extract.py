import tracemalloc

import numpy as np
import pytest
import torch
from small import Noise, SmallEncoder
from torch.nn.functional import interpolate

from benchmark.contracts import Need, Tap, View
from benchmark.contracts.progress import silent
from benchmark.errors import DataError, EncoderError
from benchmark.features import extract, store
from benchmark.features.extract import Decoded, Extractor, held_bytes
from benchmark.features.plan import Planner
from benchmark.features.store import FeatureStore
from benchmark.features.taps import mix_at_pixels, pixel_coordinates, pixel_indices
from benchmark.images.views import Placement

SQUARE = View("square")
TAPS = [
    Tap("cls"),
    Tap("patches"),
    Tap("mean_patches"),
    Tap("text_patches"),
    Tap("pixels", None, 5, 1),
    Tap("patches", 0),
]

PINNED = {
    "stratified": [
        [0.340128109791916, 0.1805703465566989],
        [0.47009009669583746, 0.5285475000095509],
        [0.7422504600924253, 0.33934331209152774],
    ],
    "independent": [
        [0.680256219583832, 0.3611406931133978],
        [0.9401801933916749, 0.05709500001910173],
        [0.4845009201848507, 0.6786866241830555],
    ],
}


def planned(encoder, images, taps, folder, view=SQUARE):
    planner = Planner(encoder.card, encoder.transform, FeatureStore(folder, "float32"))
    needs = [Need(images, view, tap) for tap in taps]
    planner.add(needs)
    return planner, needs


def extracted(encoder, images, folder, taps=TAPS, batch_size=7, workers=0, view=SQUARE):
    planner, needs = planned(encoder, images, taps, folder, view)
    extractor = Extractor(encoder, "cpu", batch_size, workers, silent)
    for need in needs:
        extractor.run(planner.of(need))
    return [planner.array(need)[:] for need in needs], extractor


def test_six_taps_cost_one_forward_per_picture(tmp_path):
    encoder, images = SmallEncoder(), Noise(150)
    arrays, extractor = extracted(encoder, images, tmp_path)
    assert encoder.seen == extractor.forwards == 150
    shapes = [tuple(a.shape) for a in arrays]
    assert shapes == [(150, 2, 6), (150, 4, 4, 6), (150, 6), (150, 4, 4, 6), (150, 5, 6), (150, 4, 4, 6)]
    assert torch.allclose(arrays[2], arrays[1].mean((1, 2)), atol=1e-6)
    extracted(encoder, images, tmp_path)
    assert encoder.seen == 150, "a second run encodes nothing"
    extracted(encoder, images, tmp_path, [*TAPS, Tap("cls", 1)])
    assert encoder.seen == 300, "a new tap needs one more pass"


class Upright(Noise):
    """Every third picture stands upright."""

    def load(self, index):
        image = super().load(index)
        return image if index % 3 else np.ascontiguousarray(image.swapaxes(0, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_decoded_in_parts_is_the_same_batch(tmp_path, monkeypatch, workers):
    taps, how = [Tap("cls"), Tap("mean_patches"), Tap("pixels", None, 5, 1)], {"view": View("pad-to-patch")}
    whole, parts = SmallEncoder(), SmallEncoder()
    expected, _ = extracted(whole, Upright(50), tmp_path / "whole", taps, batch_size=20, **how)
    monkeypatch.setattr(extract, "PART", 6)
    found, _ = extracted(parts, Upright(50), tmp_path / "parts", taps, batch_size=20, workers=workers, **how)
    assert all(torch.equal(a, b) for a, b in zip(expected, found))
    assert whole.batches == parts.batches == [7, 13, 13, 7, 7, 3]
    with pytest.raises(DataError, match="b/11.jpg: cannot be read"):
        extracted(SmallEncoder(), Broken(20), tmp_path / "broken", batch_size=20, workers=min(workers, 1))


def test_encoder_view_and_equal_square_are_one_pass(tmp_path):
    encoder = SmallEncoder()
    planner, _ = planned(encoder, Noise(3), [Tap("cls")], tmp_path)
    planner.add([Need(Noise(3), View("encoder"), Tap("patches")), Need(Noise(3), View("square", 32), Tap("cls"))])
    assert len(planner.passes) == 1
    planner.add([Need(Noise(3), View("square", 40), Tap("cls"))])
    assert len(planner.passes) == 2


def test_workers_and_batch_sizes_do_not_change_a_bit(tmp_path):
    images = Noise(140)
    (one, *_), _ = extracted(SmallEncoder(), images, tmp_path / "a", workers=0)
    (two, *_), _ = extracted(SmallEncoder(), images, tmp_path / "b", workers=2)
    assert torch.equal(one, two)


def test_batches_start_at_shard_boundaries(tmp_path):
    encoder = SmallEncoder()
    extracted(encoder, Noise(300), tmp_path, batch_size=50)
    assert encoder.batches == [50, 50, 28, 50, 50, 28, 44]


def test_interrupted_extraction_gives_the_same_bits(tmp_path):
    images = Noise(300)
    whole, _ = extracted(SmallEncoder(), images, tmp_path / "whole")
    with pytest.raises(EncoderError):
        extracted(SmallEncoder(nan_at=200), images, tmp_path / "cut")  # the first shard stays
    encoder = SmallEncoder()
    resumed, _ = extracted(encoder, images, tmp_path / "cut")
    assert encoder.seen == 172
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed))


@pytest.fixture
def narrow(monkeypatch):
    """Shards of 32 items for the wider taps and of 128 for the others."""
    monkeypatch.setattr(store, "SHARD_BYTES", 32 * 4 * 4 * 6 * 4)


def test_taps_of_one_pass_may_have_shards_of_different_sizes(tmp_path, narrow, monkeypatch):
    encoder, images = SmallEncoder(), Uniform(300)
    found, _ = extracted(encoder, images, tmp_path / "narrow", batch_size=50)
    planner, needs = planned(SmallEncoder(), images, TAPS, tmp_path / "narrow")
    assert [planner.array(need).size for need in needs] == [128, 32, 128, 32, 64, 32]
    assert encoder.batches == [50, 50, 28, 50, 50, 28, 44], "batches are those of whole blocks"
    monkeypatch.undo()
    expected, _ = extracted(SmallEncoder(), images, tmp_path / "wide", batch_size=50)
    assert all(torch.equal(a, b) for a, b in zip(expected, found))


def test_a_lost_shard_costs_the_batches_it_lies_in(tmp_path, narrow):
    images, taps = Uniform(300), [Tap("cls"), Tap("patches")]
    expected, _ = extracted(SmallEncoder(), images, tmp_path, taps, batch_size=50)
    planner, needs = planned(SmallEncoder(), images, taps, tmp_path)
    kept = planner.array(needs[1]).folder / "shard-00004.npy"
    (planner.array(needs[1]).folder / "shard-00005.npy").unlink()  # pictures 160 to 191, in batches from 128 and 178
    before = kept.stat().st_mtime_ns
    encoder = SmallEncoder()
    again, _ = extracted(encoder, images, tmp_path, taps, batch_size=50)
    assert encoder.batches == [50, 50] and kept.stat().st_mtime_ns == before
    assert all(torch.equal(a, b) for a, b in zip(expected, again))


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_extraction_holds_what_the_forecast_counts(tmp_path, monkeypatch, codec):
    """Of one array while the one before is still being written; the features themselves are torch's and not traced."""
    monkeypatch.setattr(store, "SHARD_BYTES", 2**22)
    encoder, images = SmallEncoder(width=2048), Uniform(128)
    planner = Planner(encoder.card, encoder.transform, FeatureStore(tmp_path, codec))
    planner.add([need := Need(images, SQUARE, Tap("patches"))])
    array = planner.array(need)
    assert array.size == 32
    tracemalloc.start()
    try:
        Extractor(encoder, "cpu", 8, 0, silent).run(planner.of(need))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * held_bytes(array, 4 * 16 * 2048, 8)


class Uniform(Noise):
    """Pictures that say they have one shape."""

    uniform_shape = (40, 48)


def test_a_tap_that_changes_its_shape_is_named(tmp_path):
    class Growing(SmallEncoder):
        def encode_image(self, images, request=None):
            out = super().encode_image(images)
            out.cls = out.cls.repeat(1, 1 + (self.seen > 10), 1)
            return out

    with pytest.raises(EncoderError, match=r"small: cls is \[4, 6\] for one batch and \[2, 6\] for another"):
        extracted(Growing(), Noise(20), tmp_path, [Tap("cls")])


def test_out_of_memory_halves_until_it_fits(tmp_path):
    encoder = SmallEncoder(fail_above=3)
    arrays, extractor = extracted(encoder, Noise(40), tmp_path / "a", batch_size=16)
    expected, _ = extracted(SmallEncoder(), Noise(40), tmp_path / "b", batch_size=16)
    assert extractor.batch_size <= 3 and max(encoder.batches) <= 3
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(arrays, expected))


def test_nan_features_name_the_picture(tmp_path):
    with pytest.raises(EncoderError, match=r"small: \w+ of noise/0/33 holds NaN"):
        extracted(SmallEncoder(nan_at=33), Noise(40), tmp_path)


class Broken(Noise):
    def load(self, index):
        if index == 11:
            raise DataError("b/11.jpg: cannot be read: truncated")
        return super().load(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_picture_stops_the_pass_and_is_named(tmp_path, workers):
    with pytest.raises(DataError, match="b/11.jpg: cannot be read"):
        extracted(SmallEncoder(), Broken(20), tmp_path, workers=workers)


class Strip(Noise):
    def load(self, index: int) -> np.ndarray:
        return np.zeros((1, 20_000, 3), np.uint8)


def test_a_strip_whose_view_would_fill_the_memory_is_named(tmp_path):
    view = View("short-side", 224)
    with pytest.raises(DataError, match=r"noise/0/0: cannot resize an image of 20000x1 to 4480000x224 pixels"):
        extracted(SmallEncoder(), Strip(3), tmp_path, [Tap("cls")], view=view)


class WrongGrid(SmallEncoder):
    def encode_image(self, images, request=None):
        out = super().encode_image(images)
        out.patches = out.patches.flatten(1, 2)
        return out


def test_token_lists_instead_of_maps_are_refused(tmp_path):
    with pytest.raises(EncoderError, match=r"patches are \[7, 16, 6\], expected \[7, 4, 4, D\]"):
        extracted(WrongGrid(), Noise(10), tmp_path, [Tap("cls")])


@pytest.mark.parametrize(("size", "grid"), [(34, 4), (38, 4), (32, 4), (31, 3)])
def test_a_size_of_no_whole_patches_may_leave_the_last_pixels_unseen(tmp_path, size, grid):
    """SigLIP's so400m: 384 pixels, patches of 14, 27 of them a side."""
    taps = [Tap("patches"), Tap("pixels", None, 5, 1)]
    arrays, _ = extracted(SmallEncoder(image_size=size), Noise(3), tmp_path, taps)
    assert [tuple(a.shape) for a in arrays] == [(3, grid, grid, 6), (3, 5, 6)]


def test_a_map_of_another_size_that_is_not_padded_is_refused(tmp_path):
    with pytest.raises(EncoderError, match=r"patches are \[3, 4, 4, 6\], expected \[3, 5, 5, D\] \(36×36 px"):
        extracted(SmallEncoder(), Noise(3), tmp_path, [Tap("cls")], view=View("square", 36))


def test_a_map_that_is_smaller_yet_is_refused(tmp_path):
    class Short(SmallEncoder):
        def encode_image(self, images, request=None):
            return super().encode_image(images[..., :-8, :])

    with pytest.raises(EncoderError, match=r"patches are \[3, 3, 4, 6\], expected \[3, 5, 5, D\] \(34×34 px"):
        extracted(Short(image_size=34), Noise(3), tmp_path, [Tap("cls")])


def test_sampled_pixels_equal_the_upsampled_map():
    grid = torch.randn(4, 6, 3, dtype=torch.float64)
    up = interpolate(grid.permute(2, 0, 1)[None], (37, 50), mode="bilinear", align_corners=False)[0]
    rows, columns = pixel_indices("a", Tap("pixels", None, 200), 37, 50)
    (mixed,) = mix_at_pixels(grid[None], [(rows, columns)], [(37, 50)], [Placement()])
    assert torch.allclose(mixed, up[:, rows, columns].T, atol=1e-12)


@pytest.mark.parametrize("sampling", ["stratified", "independent"])
def test_pixel_coordinates_are_pinned_and_uniform(sampling):
    def at(name, count, seed=0):
        return pixel_coordinates(name, Tap("pixels", None, count, seed, sampling))

    assert np.array_equal(at("scene/1", 3), at("scene/1", 3))
    assert not np.array_equal(at("scene/1", 3), at("scene/1", 3, 1))
    assert at("scene/1", 3).tolist() == PINNED[sampling]
    for count in (1, 5, 64):
        many = np.concatenate([at(str(i), count) for i in range(12800 // count)])
        assert many.shape == (12800 // count * count, 2) and (many >= 0).all() and (many < 1).all()
        assert np.abs(np.histogram(many, 10, (0, 1))[0] / many.size - 0.1).max() < 0.01


def test_stratified_pixels_have_a_cell_each_and_sample_a_map_better():
    image = interpolate(torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)), (96, 96), mode="bilinear")
    errors = {}
    for sampling in ("stratified", "independent"):
        taps = [Tap("pixels", None, 64, seed, sampling) for seed in range(100)]
        if sampling == "stratified":
            for tap in taps:
                cells = np.floor(8 * pixel_coordinates("a", tap)).astype(int)
                assert len({tuple(c) for c in cells}) == 64
        means = [float(image[0, 0][pixel_indices("a", tap, 96, 96)].mean()) for tap in taps]
        errors[sampling] = np.std(means)
        assert abs(np.mean(means) - float(image.mean())) < 4 * np.std(means) / 10
    assert errors["stratified"] < 0.5 * errors["independent"]


def test_padded_view_puts_pixels_where_the_picture_lies(tmp_path):
    encoder, images = SmallEncoder(), Noise(3, 20, 30)  # padded to 24 × 32
    images = UniformNoise(3, 20, 30)
    (patches,), _ = extracted(encoder, images, tmp_path, [Tap("patches")], view=View("pad-to-patch"))
    assert tuple(patches.shape) == (3, 3, 4, 6)


class UniformNoise(Noise):
    def __init__(self, *made):
        super().__init__(*made)
        self.uniform_shape = (self.height, self.width)


def test_batches_are_pinned_ahead_of_the_encoder_on_a_gpu_only(tmp_path, monkeypatch):
    seen = []

    class Loader(torch.utils.data.DataLoader):
        def __init__(self, *args, **options):
            seen.append(options.pop("pin_memory"))
            super().__init__(*args, **options)

    monkeypatch.setattr(torch.utils.data, "DataLoader", Loader)
    encoder, images = SmallEncoder(), Noise(3)
    planner, needs = planned(encoder, images, TAPS, tmp_path)
    for device in ("cpu", "cuda:0"):
        list(Extractor(encoder, device, 2, 0, silent).decoded(planner.of(needs[0]), [[0, 1], [2]]))
    assert seen == [False, True]


def test_a_pinned_batch_holds_the_same_pictures_in_page_locked_memory(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    wide, high = np.zeros((3, 8, 16), np.uint8), np.ones((3, 16, 8), np.uint8)
    batch = Decoded([4, 5, 6], [wide, high, wide + 2], [(8, 16), (16, 8), (8, 16)])
    there = batch.pin_memory()
    assert [at for at, _ in there.stacked()] == [[0, 2], [1]]
    assert [tuple(s.shape) for _, s in there.stacked()] == [(2, 3, 8, 16), (1, 3, 16, 8)]
    assert len(pinned) == 2 and there.indices == [4, 5, 6] and there.sizes == batch.sizes and there.error is None
    assert int(there.stacked()[0][1][1].max()) == 2
