"""Instance retrieval's presets: UnED's view by its own arithmetic, and its second headline metric in the row."""

from __future__ import annotations

import miniatures
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command import bench
from small import Noise, SmallEncoder
from training_context import preset

from benchmark.contracts import ImageTransform
from benchmark.images.views import resolve_view
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file
from benchmark.rows.row import read_all


def uneds(image: np.ndarray) -> np.ndarray:
    """[3, 224, 224] in 0 … 255: datasets.py's _process_test_split; torch's bilinear is tf.image.resize's."""
    height, width = image.shape[:2]
    size = (224, int(width / height * 224)) if height <= width else (int(height / width * 224), 224)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    out = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=False)[0]
    top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
    return out[:, top : top + 224, left : left + 224].numpy()


@pytest.mark.parametrize("shape", [(427, 640), (641, 480), (500, 375), (300, 301), (1200, 333)])
def test_the_presets_view_is_uneds(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    transform = ImageTransform("square", 384, None, "bicubic", True)
    shown = resolve_view(preset("instance_retrieval", "uned").seen(), transform, SmallEncoder().card, Noise(1)).lay(
        image
    )
    assert np.abs(255 * shown - uneds(image)).max() <= 0.51  # bytes: TensorFlow keeps the fractions


def test_rows_of_uned_carry_mmp5_with_interval_and_say_what_deviates(tmp_path, capsys):
    miniatures.uned(tmp_path / "data")
    line = ["--task", "instance_retrieval/uned", "--protocol", "uned", "--data", str(tmp_path / "data"), "--no-check"]
    for model in ("pixels", "random-vit"):
        assert bench("run", "--model", model, *line, "--results", str(tmp_path / model)) == 0
        (row,) = read_all(tmp_path / model)[0]
        found = row.data.metrics["mMP@5"]
        assert row.data.main_metric == "mean R@1" and found.ci95[0] <= found.value <= found.ci95[1]
        assert row.statistic("mMP@5").of(row.samples) == pytest.approx(found.value)
        assert row.statistic("mMP@5").cluster == "instance"
    capsys.readouterr()
    assert bench("compare", str(tmp_path / "pixels"), str(tmp_path / "random-vit"), "--json") == 0
    for name in ("paper", "uned"):
        task = load_task("instance_retrieval")
        made = load_protocol("instance_retrieval", task.schemas, protocol_file("instance_retrieval"), name, None, None)
        assert "a deviation: the query itself is left out" in made.description
