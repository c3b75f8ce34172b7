"""What a row says about the machine and the code that made it."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmark.rows.schema import Densebench, Environment

PACKAGES = ("torch", "jax", "numpy", "scipy", "scikit-learn", "transformers", "pillow", "mmsegmentation", "datasets")
VECTORS = ("avx", "amx", "fma", "f16c", "sse4", "asimd", "sve", "bf16", "i8mm")


def environment(device: str) -> Environment:
    """The `environment` of a row measured on `device`."""
    import torch

    on_gpu = device.startswith("cuda")
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(),
        instruction_set=torch.backends.cpu.get_cpu_capability(),
        cpu_flags=_vector_flags(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        device=device,
        gpu=torch.cuda.get_device_name(device) if on_gpu else None,
        cuda=torch.version.cuda if on_gpu else None,
        packages={name: found for name in PACKAGES if (found := package_version(name))},
        densebench=Densebench(version=package_version("densebench") or "source", **source_state()),
    )


def package_version(name: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def source_state() -> dict[str, Any]:
    """Commit and whether tracked files differ from it, of densebench's own checkout: never of the user's folder."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--untracked-files=no", "--", "benchmark", "adapters", "tasks")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def peak_gpu_memory_mb(device: str) -> float | None:
    """The most memory torch has held on `device` since the model was opened, in MiB; None on a CPU."""
    import torch

    return round(torch.cuda.max_memory_allocated(device) / 2**20, 1) if device.startswith("cuda") else None


def forget_gpu_peak(device: str) -> None:
    """Begins `peak_gpu_memory_mb` anew."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


@cache
def _vector_flags() -> tuple[str, ...]:
    """The processor's own vector and matrix units, as Linux names them: libraries choose their kernels by them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ()
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return tuple(sorted({flag for flag in flags if flag.startswith(VECTORS)}))


@cache
def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
