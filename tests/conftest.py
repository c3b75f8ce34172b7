"""Shared fixtures: a small encoder that counts, pictures in memory, a cache for the whole session."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One cache for all test processes of a session: scenes are rendered once.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
os.environ.setdefault("BENCH_TEST_CACHE", str(Path(tempfile.gettempdir()) / f"densebench-tests-{_RUN}"))
os.environ["BENCH_CACHE"] = os.environ["BENCH_TEST_CACHE"]

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
# A slow machine is no wrong answer: no deadline, no complaint that examples come slowly.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
    """What libraries hold for good is not looked through by every later collection, of which each run makes one."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes fields of a data set's row of the catalogue: miniatures have their own counts."""
    from tasks.datasets import catalog

    def change(name: str, **fields: Any) -> None:
        rows = {**catalog.catalog(), name: {**catalog.catalog()[name], **fields}}
        monkeypatch.setattr(catalog, "catalog", lambda: rows)

    return change


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The process that started the session removes its cache."""
    import shutil

    if not hasattr(session.config, "workerinput"):
        for path in Path(tempfile.gettempdir()).glob(
            f"densebench-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
        ):
            shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty results folder that commands use by default."""
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A feature cache of this test's own (scenes stay in the session's)."""
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    import shutil

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium: install it, or name it in $CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        made = p.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()
