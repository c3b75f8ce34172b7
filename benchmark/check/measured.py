"""What takes longer: speed and memory, and drift of the number types."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import ImageChecks
from benchmark.contracts import Encoder
from benchmark.errors import BenchError
from benchmark.system.processes import PeakMemory

BATCHES = (1, 4, 16)
LOW = {"bfloat16": 0.98, "float16": 0.99}  # least mean cosine of a patch with its float32 self


def speed(checks: ImageChecks, batches: Sequence[int] = BATCHES, budget_s: float = 4.0) -> list[Finding]:
    """Images per second and peak memory at each batch size; larger sizes are left out once the budget is spent."""
    findings = []
    started = time.perf_counter()
    checks.encode(checks.native(1))
    for batch in batches:
        if time.perf_counter() - started > budget_s:
            findings.append(passed(f"batch {batch}", "not measured: too slow for a check"))
            continue
        images = checks.native(batch)
        cuda = images.is_cuda
        resident = PeakMemory()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        begin = time.perf_counter()
        checks.encode(images)
        if cuda:
            torch.cuda.synchronize()
        rate = batch / (time.perf_counter() - begin)
        findings.append(passed(f"batch {batch}", f"{rate:.3g} images/s, {peak_mb(resident, cuda):.0f} MB peak"))
    return findings


def peak_mb(resident: PeakMemory, cuda: bool) -> float:
    """GPU memory since the last reset, or the process's largest resident size since `resident` was made."""
    return torch.cuda.max_memory_allocated() / 2**20 if cuda else resident.mb()


def dtype_drift(checks: ImageChecks, reload: Callable[[str], Encoder]) -> list[Finding]:
    """Mean cosine of patch tokens in bfloat16 and float16 with those in float32, which they must not equal."""
    images = checks.native(1)
    with torch.inference_mode():
        exact = reload("float32").encode_image(images).patches.float()
        findings = []
        for dtype, least in LOW.items():
            name = f"{dtype} drift"
            try:
                encoder = reload(dtype)
            except BenchError as error:
                findings.append(passed(name, f"refused: {error}"))
                continue
            rough = encoder.encode_image(images).patches.float()
            if not torch.isfinite(rough).all():
                findings.append(failed(name, "not finite", f"overflow: do not run this model with --dtype {dtype}"))
                continue
            if torch.equal(exact, rough):
                why = f"--dtype {dtype} changes nothing: follow spec.dtype, or refuse it with a UsageError"
                findings.append(failed(name, "ignored", why))
                continue
            cosine = F.cosine_similarity(exact, rough, dim=-1).mean().item()
            if cosine < least:
                findings.append(failed(name, f"cosine {cosine:.4f}", f"below {least}: keep --dtype float32"))
            elif encoder.card.dtype != dtype:
                why = f"--dtype {dtype} gives a card that says {encoder.card.dtype}: name what is computed in"
                findings.append(failed(name, encoder.card.dtype, why))
            else:
                findings.append(passed(name, f"cosine {cosine:.4f}"))
    return findings
