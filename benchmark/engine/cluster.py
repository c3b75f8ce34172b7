"""Ray as the engine of a run: workers of one GPU (or one core) each, calls to them, and their deaths."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from benchmark.engine.options import RunOptions
from benchmark.engine.ray_address import refuse_dead_address
from benchmark.engine.worker import Brief, Worker
from benchmark.errors import BenchError, MissingExtra, first_line
from benchmark.system.signals import Stopped

FORWARDED = ("BENCH_", "HF_", "TRANSFORMERS_", "XDG_CACHE_HOME")  # how this process finds files and the network
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical", "include_dashboard": False}


def start_ray(**words: Any) -> Any:
    """Ray, joined or started with these words of `ray.init`. Its workers take part in the machine as a run without it
    does: left to itself Ray gives them a niceness of 15, and beside anything else they stand still."""
    ray = importlib.import_module("ray")
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(**QUIET, **words)
    return ray


@dataclass(frozen=True)
class Lost:
    """What a call gives whose worker is gone."""

    why: str


def refuse_without_ray(options: RunOptions) -> None:
    """Raises MissingExtra for --ray without the extra, UsageError or BenchError where its address is none."""
    if not options.ray:
        return
    if find_spec("ray") is None:
        raise MissingExtra("--ray", "ray")
    if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
        refuse_dead_address(options.ray)


class Cluster:
    """`address` is "local" (processes on this machine), "auto" or the head's; `most` caps the workers.

    Raises BenchError when there is no cluster there, or none of the device that is asked for.
    """

    def __init__(self, address: str, most: int | None, device: str) -> None:
        self.ray: Any = importlib.import_module("ray")
        self.most = most
        self.started = not self.ray.is_initialized()
        if self.started:
            before = signal.getsignal(signal.SIGTERM)
            try:
                start_ray(address=address)
            except (ConnectionError, RuntimeError, ValueError) as e:
                raise BenchError(
                    f"--ray {address}: Ray cannot join what answers ({first_line(e).rstrip('.')}). Its version must be"
                    f" this one, {self.ray.__version__}; a token that it asks for needs RAY_AUTH_MODE=token"
                ) from None
            except SystemExit as e:
                raise (Stopped() if e.code == signal.SIGTERM else e) from None
            finally:
                if callable(before):  # Ray's own handler would end the process with a code of its own
                    signal.signal(signal.SIGTERM, before)
        self.gpu = device != "cpu" and self._has("GPU") > 0
        if device.startswith("cuda") and not self.gpu:
            raise BenchError(f"--device {device}: the cluster {address} has no GPU. Use --device cpu")
        self._actor: Any = None
        self._brief: Any = None

    def _has(self, resource: str) -> int:
        return int(self.ray.cluster_resources().get(resource, 0))

    @property
    def size(self) -> int:
        """Workers that have room now."""
        found = max(1, self._has("GPU" if self.gpu else "CPU"))
        return found if self.most is None else min(found, self.most)

    @property
    def threads(self) -> int:
        """Threads of each worker: what the user says, else its share of the cores."""
        if own := os.environ.get("OMP_NUM_THREADS"):
            first = own.partition(",")[0].strip()  # OpenMP takes a number for each level of nesting
            return int(first) if first.isdigit() and int(first) else 1
        return max(1, self._has("CPU") // self._has("GPU")) if self.gpu else 1

    def give(self, brief: Brief) -> None:
        """What every worker is to know. Raises BenchError where it cannot travel."""
        try:
            self._brief = self.ray.put(brief)
        except Exception as e:
            raise BenchError(
                f"--ray: the data cannot be sent to another process ({first_line(e)}). Run without --ray"
            ) from None
        own = {k: v for k, v in os.environ.items() if k.startswith(FORWARDED)}
        environment = {**own, "OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "passive"}
        self._actor = self.ray.remote(
            num_cpus=1, num_gpus=1 if self.gpu else 0, max_restarts=0, runtime_env={"env_vars": environment}
        )(Worker)

    def hire(self) -> Any:
        """A new worker; it is there when its first call is answered."""
        return self._actor.remote(self._brief, self.threads)

    def call(self, worker: Any, *words: Any) -> Any:
        """Asks the worker for `do(*words)`; what `wait` gives the answer to."""
        return worker.do.remote(*words)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[tuple[Any, Any]]:
        """Calls that were answered within `seconds`, each with its answer or Lost. Raises what a worker let out."""
        found = []
        for call in (
            self.ray.wait(list(calls), num_returns=len(calls), timeout=0)[0]
            or (self.ray.wait(list(calls), num_returns=1, timeout=seconds)[0])
        ):
            try:
                found.append((call, self.ray.get(call)))
            except self.ray.exceptions.RayTaskError as e:
                raise e.cause from None
            except self.ray.exceptions.RayError as e:
                found.append((call, Lost(_reason(e))))
        return found

    def fire(self, worker: Any) -> None:
        """Ends a worker, whatever it does."""
        self.ray.kill(worker)

    def close(self) -> None:
        """Ends what this run has started."""
        if self.started:
            self.ray.shutdown()


def _reason(error: Exception) -> str:
    """The line of Ray's report that says why a worker is gone."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line or "memory" in line.lower()]
    return (told or lines or [type(error).__name__])[-1]
