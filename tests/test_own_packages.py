"""A project with its own `tasks/`, `adapters/` and `benchmark.py`: densebench works there, or says whose it met."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from benchmark.errors import UsageError
from benchmark.registry import load_task
from benchmark.system import own_packages

ROOT = Path(__file__).parents[1]
RUN = ["--model", "pixels", "--task", "instance_retrieval/scenes", "--limit", "24", "--no-check", "--results", "rows"]
API = """
from benchmark import run
assert run("pixels", "instance_retrieval/scenes", limit=24, results="rows", check=False).rows
import tasks.depth, sys
assert tasks.depth.TASK and sys.path[1] == {folder!r}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder where everything of the user's fails as soon as it is imported."""
    for name in own_packages.NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the project was imported')")
    return tmp_path


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True)


def test_the_command_runs_in_such_a_project(project):
    (project / "benchmark.py").write_text("raise RuntimeError('the project was imported')")
    bench = "from benchmark.cli import main; main()"  # the script `bench` has its own folder on the path, not this one
    done = python(project, "-P", "-c", bench, "run", *RUN)
    assert done.returncode == 0 and list((project / "rows").rglob("result.json")), done.stderr


def test_the_module_runs_where_the_current_folder_comes_first(project):
    done = python(project, "-m", "benchmark.cli", "run", *RUN)
    assert done.returncode == 0 and list((project / "rows").rglob("result.json")), done.stderr


def test_the_python_api_works_where_the_projects_packages_were_not_imported(project):
    (project / "study.py").write_text(API.format(folder=str(project)))
    done = python(project, "study.py")
    assert done.returncode == 0, done.stderr


def test_one_line_says_whose_package_was_imported_before(monkeypatch):
    own = types.ModuleType("tasks")
    own.__file__ = "/project/tasks/__init__.py"
    monkeypatch.setitem(sys.modules, "tasks", own)
    own_packages.ours.cache_clear()
    with pytest.raises(UsageError, match=r"'tasks' of this process is /project/tasks/__init__\.py, which is not dense"):
        load_task("depth")
    own_packages.ours.cache_clear()


def test_a_package_that_was_installed_over_ours_is_named(monkeypatch):
    """PyPI has an `adapters`, too: whichever was installed last holds the folder."""

    def broken(name: str) -> None:
        raise ImportError("cannot import name 'AdapterSetup'")

    monkeypatch.delitem(sys.modules, "adapters", raising=False)
    monkeypatch.setattr(own_packages.importlib, "import_module", broken)
    own_packages.ours.cache_clear()
    with pytest.raises(UsageError, match=r"'adapters' .* and cannot be imported \(.*'AdapterSetup'"):
        own_packages.ours("adapters")
    own_packages.ours.cache_clear()
