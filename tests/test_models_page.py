"""docs/models.md is what its tables say, and every model by name is held to something by a test that measured it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from deviations import named

from benchmark.cli.weights import steps
from benchmark.registry import models

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", DOCS / "pages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_of_its_tables(pages: ModuleType) -> None:
    stands = (DOCS / "models.md").read_text(encoding="utf-8")
    assert "\n".join(pages.models()) + "\n" == stands, "run python docs/pages.py"


def test_every_model_is_held_to_a_reference_that_a_test_measured(pages: ModuleType) -> None:
    deviations = json.loads((DOCS / "deviations.json").read_text(encoding="utf-8"))
    for name, row in models().items():
        if row["family"] == "floors":
            continue
        reference = pages.reference_of(name, row)
        for what in ("own", "other", "odd", *(["texts"] if row["has_text"] else [])):
            file, _, function = reference[what].partition("[")[0].partition("::")
            assert f"def {function}(" in (DOCS.parent / file).read_text(encoding="utf-8"), (name, what)
            assert 0 <= deviations[reference[what]] <= 1e-5, (name, what)
    assert deviations.keys() == named(), "run python tests/deviations.py"


def test_gated_and_pickled_weights_have_their_steps() -> None:
    for name, row in models().items():
        text = "\n".join(steps(name, row))
        if row.get("gated"):
            assert f"https://huggingface.co/{row['hub']}, then: hf auth login" in text, name
        if "files" in row and row["family"] != "dinotxt":
            assert "weights_only=True" in text and "save_file(" in text, name
        if "library" in row:
            extra = row["library"].partition(":")[0]
            assert re.match(rf"pip install 'densebench\[{extra}\]'\n", text), name
