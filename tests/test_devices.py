"""Where pictures go: the encoder says it, or its modules do; what a row says of the device."""

from __future__ import annotations

import pytest
import torch
from small import SmallEncoder
from torch import nn

from benchmark.engine.environment import environment, peak_gpu_memory_mb
from benchmark.engine.loading import device_of, load_encoder, resolve_device
from benchmark.errors import UsageError


class Holder(SmallEncoder):
    """An encoder that keeps a module and says nothing of a device."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class IsModule(nn.Module):
    def __init__(self, device: str) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, device=device)


def test_an_encoder_that_says_where_it_is_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Holder(nn.Linear(2, 2, device="meta"))
    encoder.device = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(encoder, "cpu") == "cuda:1"


@pytest.mark.parametrize("device", ["cuda:0", "tpu:0", "TPU_0(process=0,(0,0,0,0))"])
def test_a_device_of_jax_that_torch_does_not_see_takes_pictures_from_the_cpu(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SmallEncoder()
    encoder.device = device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(encoder, "auto") == "cpu"


@pytest.mark.parametrize("encoder", [Holder(nn.Linear(2, 2, device="meta")), IsModule("meta")])
def test_else_its_modules_are_where_pictures_go(encoder: object) -> None:
    assert device_of(encoder, "cuda") == "meta"  # type: ignore[arg-type]


def test_else_what_was_asked_for_and_else_the_cpu() -> None:
    assert device_of(SmallEncoder(), "cuda:2") == "cuda:2"
    assert device_of(SmallEncoder()) == device_of(Holder(nn.Identity())) == "cpu"


@pytest.mark.parametrize("device", ["mps", "meta"])
def test_a_device_without_float64_is_refused_before_anything_runs(device: str) -> None:
    """Heads and metrics decide in float64: on Apple's GPUs a run would end after everything was encoded."""
    with pytest.raises(UsageError, match=rf"--device {device}: cannot be used \(.*Use cpu"):
        resolve_device(device)


def test_jax_picks_its_own_device_whatever_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a JAX without a GPU beside a torch with one
    encoder = load_encoder("tipsv2-mini", backend="jax", dtype="float32")
    kind = {"gpu": "cuda"}.get(encoder.device.platform, encoder.device.platform)
    assert device_of(encoder).partition(":")[0] == kind  # old versions of JAX call a CPU TFRT_CPU_0


def test_a_row_of_a_cpu_names_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU at {device}")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 << 20)
    here, there = environment("cpu"), environment("cuda:1")
    assert (here.device, here.gpu, here.cuda, peak_gpu_memory_mb("cpu")) == ("cpu", None, None, None)
    assert (there.device, there.gpu, peak_gpu_memory_mb("cuda:1")) == ("cuda:1", "a GPU at cuda:1", 3.0)
