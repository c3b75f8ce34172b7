"""What takes longer: speed and memory, drift of the number types, and whether features beat chance."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from benchmark import images as pictures
from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import ImageChecks
from benchmark.contracts import Encoder, LabelData
from benchmark.processes import peak_memory_mb

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
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        begin = time.perf_counter()
        checks.encode(images)
        if cuda:
            torch.cuda.synchronize()
        rate = batch / (time.perf_counter() - begin)
        findings.append(passed(f"batch {batch}", f"{rate:.3g} images/s, {peak_mb(cuda):.0f} MB peak"))
    return findings


def peak_mb(cuda: bool) -> float:
    """GPU memory since the last reset, or the process's largest resident size so far."""
    if cuda:
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory_mb()


def dtype_drift(checks: ImageChecks, reload: Callable[[str], Encoder]) -> list[Finding]:
    """Mean cosine of patch tokens in bfloat16 and float16 with those in float32."""
    images = checks.native(1)
    with torch.inference_mode():
        exact = reload("float32").encode_image(images).patches.float()
        findings = []
        for dtype, least in LOW.items():
            name = f"{dtype} drift"
            rough = reload(dtype).encode_image(images).patches.float()
            if not torch.isfinite(rough).all():
                findings.append(failed(name, "not finite", f"overflow: do not run this model with --dtype {dtype}"))
                continue
            cosine = F.cosine_similarity(exact, rough, dim=-1).mean().item()
            if cosine < least:
                findings.append(failed(name, f"cosine {cosine:.4f}", f"below {least}: keep --dtype float32"))
            else:
                findings.append(passed(name, f"cosine {cosine:.4f}"))
    return findings


def chance(checks: ImageChecks, data: LabelData, count: int = 256, seed: int = 0) -> Finding:
    """Leave-one-out nearest neighbour on CLS against the largest class's share, by three standard errors."""
    total = len(data.images)
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    rows = []
    for start in range(0, len(chosen), 16):
        batch = [
            pictures.apply_transform(data.images.load(int(i)), checks.encoder.transform)
            for i in chosen[start : start + 16]
        ]
        rows.append(checks.encode(torch.from_numpy(np.stack(batch)).to(checks.device)).cls.flatten(1).float().cpu())
    features = F.normalize(torch.cat(rows), dim=-1)
    similarity = features @ features.T
    similarity.fill_diagonal_(-2)
    labels = np.asarray(data.labels)[chosen]
    hits = float((labels[similarity.argmax(dim=1).numpy()] == labels).mean())
    base = np.bincount(labels).max() / len(labels)
    alarm = base + 3 * float(np.sqrt(base * (1 - base) / len(labels)))
    value = f"1-NN {100 * hits:.1f} %, chance {100 * base:.1f} %"
    if hits <= alarm:
        return failed("above chance", value, "CLS knows nothing: wrong normalisation, unloaded weights?")
    return passed("above chance", value)
