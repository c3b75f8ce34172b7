import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.contracts import ImageTransform
from benchmark.system.digest import canonical_json, fingerprint

# Pinned below: a change means that every stored row and feature loses its identity.
VALUES = {"b": [1, 1.0, True, None, "é"], "a": {"y": 0.1, "x": 1e-7}}


def test_canonical_json_is_pinned():
    assert canonical_json(VALUES) == '{"a":{"x":1e-07,"y":0.1},"b":[1,1.0,true,null,"\\u00e9"]}'


def test_fingerprint_is_the_same_in_other_processes_and_hash_seeds():
    code = "from benchmark.system.digest import fingerprint; print(fingerprint({'b': {3, 1, 2}, 'a': (0.1, 'x')}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PATH": ""}, cwd=Path(__file__).parents[1],
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }  # fmt: skip
    assert found == {fingerprint({"a": [0.1, "x"], "b": [1, 2, 3]}) + "\n"}


def test_any_field_changes_the_fingerprint_of_a_transform():
    base = ImageTransform("square", 224)
    changes: dict[str, Any] = {
               "resize": "none", "size": 225, "crop": 224, "interpolation": "nearest", "antialias": False,
               "rounding": "even", "range": (-1.0, 1.0), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # fmt: skip
    assert set(changes) == {f.name for f in dataclasses.fields(base)}
    prints = {dataclasses.replace(base, **{k: v}).fingerprint() for k, v in changes.items()}
    assert len(prints | {base.fingerprint()}) == len(changes) + 1


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()))
def test_key_order_does_not_matter(values):
    assert fingerprint(values) == fingerprint(dict(reversed(list(values.items()))))


def test_not_a_number_cannot_be_hashed():
    with pytest.raises(ValueError, match="finite"):
        fingerprint({"a": [float("nan")]})
