"""The notebook in examples/ is what its cells give: they are run, and shown what is committed."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "notebook"


def module() -> Any:
    spec = importlib.util.spec_from_file_location("make_notebook", FOLDER / "make.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def words(output: dict[str, Any]) -> str:
    """What an output says, without its numbers: the last digit may be another machine's."""
    text = "".join(output.get("text", output.get("data", {}).get("text/plain", [])))
    return re.sub(r"\s+", " ", re.sub(r"[\d.]+", "#", text))


def test_its_cells_run_and_give_what_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (FOLDER / "first_look.py").read_text(encoding="utf-8")
    kept = json.loads((FOLDER / "first_look.ipynb").read_text(encoding="utf-8"))
    made = module().notebook(text)
    assert [cell["source"] for cell in kept["cells"]] == [cell["source"] for cell in made["cells"]], "run make.py"
    shown = set()
    for old, new in zip(kept["cells"], made["cells"]):
        assert [words(o) for o in old.get("outputs", [])] == [words(o) for o in new.get("outputs", [])]
        for output in old.get("outputs", []):
            shown |= set(output.get("data", {}))
            if picture := output.get("data", {}).get("image/png"):
                assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert shown == {"text/plain", "text/html", "image/png"}
    assert kept["nbformat"] == 4 and len({cell["id"] for cell in kept["cells"]}) == len(kept["cells"])
    assert (FOLDER / "first_look.ipynb").stat().st_size < 300_000


def test_cells_are_parted_and_a_failing_one_stops() -> None:
    make = module()
    assert make.cells("# %% [markdown]\n# # A\n#\n# b\n\n# %%\nx = 1\nx\n") == [
        ("markdown", "# A\n\nb"),
        ("code", "x = 1\nx"),
    ]
    assert make.executed("x = 2\nx", {})[0]["data"] == {"text/plain": ["2"]}
    assert make.executed("print(1)\nNone", {}) == [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]
    with pytest.raises(ZeroDivisionError):
        make.notebook("# %%\n1 / 0\n")
