"""The documentation site builds without a warning, and its generated pages hold what the tables hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import registry
from benchmark.cli.commands import COMMANDS
from benchmark.protocol import presets

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text(encoding="utf-8")


def test_every_preset_field_data_set_model_and_command_has_its_place(site):
    protocols = page(site, "reference/protocols")
    for task in registry.tasks():
        for preset in presets(registry.protocol_file(task)):
            assert f"{preset} of {task}" in protocols
    for name in registry.datasets():
        assert f'id="{name}"' in page(site, "reference/datasets")
    for name in registry.models():
        assert f"<td>{name}</td>" in page(site, "models")
    for name in COMMANDS:
        assert f"bench {name}" in page(site, "reference/commands")


def test_every_task_has_a_page_with_its_shipped_rows_and_picture(site):
    for task in (unit.split("/")[0] for unit in registry.suites()["scenes"]["units"]):
        name = "caption_retrieval" if task.endswith("_retrieval") and "text" in task else task
        text = page(site, f"tasks/{name}")
        assert f"<td>{task}, " in text
        assert "<!-- " not in text.partition("<article")[2].partition("</article>")[0]
    assert (site / "pictures/depth.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_on_the_site_asks_another_host(site):
    for file in site.rglob("*.html"):
        head = file.read_text(encoding="utf-8").partition("</head>")[0]
        assert 'href="https://fonts' not in head and 'src="http' not in head
