"""On an NVIDIA GPU: the same numbers as on the CPU, every trained protocol, memory that really runs out.

Skipped where there is no GPU. The rest of the suite runs on the GPU too where there is one, since `--device auto`
picks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command import bench
from recipe_fixtures import tiny
from small import Noise

from adapters.tipsv2.recipe.trainer import train
from benchmark.contracts import ImageRequest
from benchmark.contracts.progress import silent
from benchmark.engine.loading import load_encoder
from benchmark.features.encode import encode_halving
from benchmark.features.extract import Extractor
from benchmark.heads.knn import topk_search
from benchmark.heads.logistic import fit_logistic
from benchmark.heads.ridge import RidgeAccumulator
from benchmark.metrics.positives import caption_positives
from benchmark.metrics.retrieval import average_precision, ranks
from benchmark.rows.row import Row, read_all

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

SMALL = ["batch_size=2", "short_side=96", "crop=96", "window=96", "stride=63", "warmup_steps=1", "steps=4"]
DENSE = ["batch_size=2", "steps=3", "warmup_steps=1"]
TRAINED = {
    ("linear_segmentation", "paper"): SMALL,
    ("linear_segmentation", "dinov3"): SMALL,
    ("depth", "paper"): [*DENSE, "bins=8"],
    ("depth", "dpt"): [*DENSE, "bins=8", "channels=8"],
    ("normals", "paper"): [*DENSE, "channels=8"],
    ("classification", "paper"): ["ks=[1, 2]", "headline_k=2", "epochs=1", "epoch_length=3", "batch=4"],
}


def rows(folder: Path) -> dict[str, Row]:
    found, problems = read_all(folder)
    assert not problems
    return {row.unit: row for row in found}


@pytest.mark.parametrize("model", ["tipsv2-mini", "random-vit"])
def test_nine_rows_equal_those_of_the_cpu(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        words = ["run", "--model", model, "--suite", "scenes", "--limit", "200", "--device", device]
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / device / "cache"))  # or one's features would serve the other
        assert bench(*words, "--dtype", "float32", "--results", str(tmp_path / device), "--no-check") == 0
        found[device] = rows(tmp_path / device)
    assert len(found["cpu"]) == len(found["cuda"]) == 9
    for unit, row in found["cpu"].items():
        other = found["cuda"][unit]
        assert (row.data.environment.device, other.data.environment.device) == ("cpu", "cuda")
        # one picture of 200 changing sides moves a share by half a point; RMSE and degrees hold to four digits
        slack = 0.51 if row.main.unit == "%" else 1e-3 * abs(row.main.value)
        assert other.main.value == pytest.approx(row.main.value, abs=slack), unit


def test_bfloat16_is_what_auto_means_and_stays_close(tmp_path: Path) -> None:
    task = ["--task", "depth/scenes", "--limit", "100", "--no-check", "--model", "tipsv2-mini"]
    for name, words in {"auto": [], "exact": ["--dtype", "float32"]}.items():
        assert bench("run", *task, *words, "--results", str(tmp_path / name)) == 0
    auto, exact = (rows(tmp_path / name)["depth/scenes"] for name in ("auto", "exact"))
    assert auto.data.model.dtype == "bfloat16"
    assert auto.main.value == pytest.approx(exact.main.value, rel=0.02)


@pytest.mark.parametrize(("task", "preset"), TRAINED)
def test_a_trained_probe_runs_and_its_scores_are_its_samples(task: str, preset: str, tmp_path: Path) -> None:
    sets = [w for field in TRAINED[task, preset] for w in ("--set", field)]
    words = ["run", "--model", "random-vit", "--task", f"{task}/scenes", "--protocol", preset, "--limit", "24", *sets]
    assert bench(*words, "--device", "cuda", "--results", str(tmp_path), "--no-check") == 0
    row = rows(tmp_path)[f"{task}/scenes"]
    assert row.statistic().of(row.samples) == pytest.approx(row.main.value, rel=1e-12)


@pytest.fixture
def little_memory() -> Iterator[int]:
    """Half a GB for this process; the bytes are given."""
    total, share = torch.cuda.get_device_properties(0).total_memory, 512 << 20
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share / total)
    yield share
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_the_batch_is_halved_when_memory_really_runs_out(little_memory: int) -> None:
    encoder = load_encoder("random-vit", device="cuda")
    images = torch.rand(2048, 3, 96, 96).mul(255).to(torch.uint8)
    sizes: list[int] = []
    whole = encode_halving(encoder, images, ImageRequest(), "cuda", sizes.append)
    assert sizes and min(sizes) < 2048, "it never ran out: the test proves nothing"
    part = encode_halving(encoder, images[:8], ImageRequest(), "cuda")
    torch.testing.assert_close(whole.patches[:8], part.patches, rtol=1e-2, atol=1e-2)


def test_heads_and_ranks_do_not_depend_on_the_device() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(6000, 24)).astype(np.float32))
    y = (x @ torch.from_numpy(rng.normal(size=(24, 5)).astype(np.float32))).argmax(1)
    held = np.arange(6000) % 10 == 0
    cpu, gpu = (fit_logistic(x, y, 5, holdout=held, device=d, criterion="mIoU") for d in ("cpu", "cuda"))
    assert cpu.penalty == gpu.penalty
    torch.testing.assert_close(cpu.weight, gpu.weight, rtol=2e-3, atol=2e-3)
    solved = []
    for device in ("cpu", "cuda"):
        fit = RidgeAccumulator(24, 1, device)
        fit.add(x, x[:, :1] * 2 + x[:, 1:2], held)
        solved.append(fit.solve((1e-3, 1e-1)))
    torch.testing.assert_close(solved[0].weight.cpu(), solved[1].weight.cpu(), rtol=1e-6, atol=1e-6)
    doubled = torch.cat([x, x[:500]])  # ties
    found = [topk_search(x[:300], doubled, 20, device=d) for d in ("cpu", "cuda")]
    assert torch.equal(found[0][1], found[1][1]) and torch.allclose(found[0][0], found[1][0], rtol=1e-13)
    texts = x.repeat_interleave(2, 0) + 0.3 * torch.from_numpy(rng.normal(size=(12000, 24)).astype(np.float32))
    to_text, to_image = caption_positives([2] * len(x))
    for q, g, positives in ((x, texts, to_text), (texts, x, to_image)):
        assert np.array_equal(ranks(q, g, positives), ranks(q, g, positives, device="cuda"))
    positives = caption_positives([2] * 500)[0]
    here, there = (average_precision(x[:500], texts, positives, device=d) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(here, there, rtol=1e-12)


def test_compiled_encoder_gives_the_same_tokens() -> None:
    images = torch.rand(4, 3, 96, 96).mul(255).to(torch.uint8)
    plain, compiled = (
        load_encoder("tipsv2-mini", device="cuda", dtype="float32", options=options)
        for options in ({}, {"compile": "true"})
    )
    request = ImageRequest(layers=(2,), text_patches=True)
    one, two = (encode_halving(e, images, request, "cuda") for e in (plain, compiled))
    torch.testing.assert_close(one.patches, two.patches, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.layers[0].patches, two.layers[0].patches, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.text_patches, two.text_patches, rtol=1e-4, atol=1e-4)


def test_jax_gives_the_tokens_of_torch_on_the_gpu() -> None:
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("this JAX sees no GPU")
    images = torch.rand(4, 3, 96, 96, device="cuda")
    found = [
        load_encoder("tipsv2-mini", backend=backend, device="cuda", dtype="float32", options={"gelu": "tanh"})
        for backend in ("torch", "jax")
    ]
    outputs = [encode_halving(e, images, ImageRequest(text_patches=True), "cuda") for e in found]
    assert outputs[1].patches.is_cuda, "tensors cross without a copy to the CPU"
    torch.testing.assert_close(outputs[0].patches, outputs[1].patches, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs[0].text_patches, outputs[1].text_patches, rtol=1e-4, atol=1e-4)
    texts = [e.encode_text(["a red cup", ""]).cpu() for e in found]
    torch.testing.assert_close(*texts, rtol=1e-4, atol=1e-4)


def test_extraction_gives_the_features_of_a_bare_loop() -> None:
    encoder = load_encoder("random-vit", device="cuda", dtype="float32")
    pictures = torch.from_numpy(np.stack([Noise(9, 96, 96).load(i) for i in range(9)])).permute(0, 3, 1, 2)
    extractor = Extractor(encoder, "cuda", 4, 0, silent)
    with torch.inference_mode():
        bare = encoder.encode_image(pictures.cuda().float() / 255)
    torch.testing.assert_close(extractor.forward(pictures, ImageRequest()).patches, bare.patches)


def test_the_recipe_trains_and_goes_on(tmp_path: Path) -> None:
    config = tiny(train__device="cuda", train__dtype="bfloat16")
    folder = train(config, tmp_path / "run", quiet=True)
    assert (folder / "model.safetensors").stat().st_size > 0
    encoder = load_encoder("tipsv2-mini", weights=str(folder), device="cuda")
    assert torch.isfinite(encode_halving(encoder, torch.rand(2, 3, 32, 32), ImageRequest(), "cuda").patches).all()
