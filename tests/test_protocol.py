import math
import subprocess
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from benchmark import load_task as load_unit
from benchmark.errors import UsageError
from benchmark.protocol import FileDigest, load_protocol, presets, variants
from benchmark.registry import datasets, load_task, protocol_file, tasks
from benchmark.system.bounds import Bounds


@dataclass(frozen=True)
class Toy:
    k: int
    rate: float
    mode: Literal["a", "b"]
    sizes: tuple[int, ...]


TOML = """
[base]
schema = "toy"
description = "first"
k = { value = 3, status = "confirmed", source = "paper §1" }
rate = { value = 1, status = "inferred", source = "code" }
mode = { value = "a", status = "unknown", source = "nobody" }
sizes = { value = [1, 2], status = "confirmed", source = "paper §2" }

[child]
base = "base"
k = { value = 4, status = "confirmed", source = "paper §3" }
"""


OTHER = 'source = "code", alternatives = [{ '


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(TOML)
    return path


def load(path: Path, name: str = "base", **overrides: str):
    return load_protocol("toy", {"toy": Toy}, path, name, overrides)


def test_preset_becomes_a_frozen_dataclass_with_status_and_source(file):
    found = load(file)
    assert found.values == Toy(3, 1.0, "a", (1, 2))
    assert found.fields()["rate"] == {"value": 1.0, "status": "inferred", "source": "code"}
    assert found.not_confirmed() == ["rate", "mode"]


def test_hash_ignores_names_and_remarks(file):
    assert load(file).hash != load(file, "child").hash
    file.write_text(TOML.replace("paper §1", "elsewhere").replace("first", "second"))
    renamed = load(file)
    file.write_text(TOML)
    assert renamed.hash == load(file).hash


def test_child_inherits_and_overrides(file):
    assert load(file, "child").values == Toy(4, 1.0, "a", (1, 2))


def test_set_changes_value_hash_and_origin(file):
    found = load(file, k="7", sizes="[5]", mode="b")
    assert found.values == Toy(7, 1.0, "b", (5,))
    assert found.name == "base+set" and found.hash != load(file).hash
    assert found.origins["k"].source == "set by the user"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("k = { value = 3", "kk = { value = 3", r"unknown field in .*/toy.toml \[base\] 'kk'. Did you mean 'k'"),
        ('"unknown"', '"surely"', "status 'surely' is not one of confirmed, inferred, unknown"),
        ("value = 3", 'value = "3"', "'3' is str, must be int"),
        ("value = 3,", "value = true,", "True is bool, must be int"),
        ('value = "a"', 'value = "c"', "'c' is not one of a, b"),
        ("value = [1, 2]", "value = [1, 2.5]", "2.5 is float, must be int"),
        ('schema = "toy"', 'schema = "tow"', "schema 'tow' is not one of toy"),
        (', source = "paper §2"', "", "must be { value = …, status = …, source = … }"),
        ("rate = ", "# rate = ", "field 'rate' is missing"),
        ("[child]", "[child", "cannot be read as TOML"),
        ("value = 1,", "value = nan,", "nan must be finite"),
        ("value = 1,", f"value = 1{'0' * 400},", "inf must be finite"),
        ("value = 1,", "value = false,", "False is bool, must be float"),
        ("value = [1, 2]", "value = 1", "1 must be a list"),
        (
            'source = "code" }',
            'source = "code", only = "a", alternatives = [] }',
            "alternatives is a list, or only says",
        ),
        ('source = "code" }', 'source = "code", only = 3 }', "alternatives is a list, or only says in words"),
        ('source = "code" }', 'source = "code", alternatives = [3] }', "an alternative must be { value = …, reason"),
        ('source = "code" }', f'{OTHER}value = 2, reason = "" }}] }}', "an alternative must be"),
        ('source = "code" }', f'{OTHER}value = 2, reason = "r", more = 1 }}] }}', "an alternative must be"),
        (
            'source = "code" }',
            f'{OTHER}value = 2, reason = "r", also = {{ z = 1 }} }}] }}',
            "also changes z, which is no",
        ),
        ('source = "code" }', f'{OTHER}value = 1, reason = "r" }}] }}', r"the alternative rate = 1.0 is no other"),
    ],
)
def test_wrong_presets_are_named(file, old, new, message):
    file.write_text(TOML.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        load(file)


def test_a_base_is_another_preset_of_the_file(file):
    for base in ("child", "nobody"):
        file.write_text(TOML.replace('base = "base"', f'base = "{base}"'))
        with pytest.raises(UsageError, match=rf"toy.toml \[child\]: base '{base}' is no other preset of this file"):
            load(file, "child")


def test_an_override_that_nothing_reads_is_refused_from_python_too():
    with pytest.raises(UsageError, match=r"unknown protocol field in --set 'bin_step'. Did you mean 'bin_steps'"):
        load_unit("depth/scenes", overrides={"bin_step": "3"})


@pytest.mark.parametrize("option", ["weights", "dtype", "force", "limt"])
def test_an_option_that_load_task_does_not_read_is_refused_with_those_that_it_does(option):
    """An encoder is loaded by then, and no row is written: such an option would change nothing, silently."""
    with pytest.raises(UsageError, match=f"option of load_task '{option}'.* All: protocol, overrides, .*, seed"):
        load_unit("depth/scenes", **{option: "x"})


def test_unknown_preset_suggests(file):
    with pytest.raises(UsageError, match="Did you mean 'base'"):
        load(file, "bass")


@pytest.mark.parametrize("task", list(tasks()))
def test_every_preset_of_every_task_loads_and_is_sourced(task):
    loaded = load_task(task)
    for name in presets(protocol_file(task)):
        special = variants(protocol_file(task), name)
        assert set(special) <= set(datasets())
        for dataset in (None, *special):
            found = load_protocol(task, loaded.schemas, protocol_file(task), name, None, dataset)
            assert all(origin.source for origin in found.origins.values())


def test_hashes_of_the_fast_presets_are_pinned():
    """A changed hash means rows that no longer compare with those published: change it knowingly."""
    found = {}
    for task in tasks():
        found[task] = load_protocol(task, load_task(task).schemas, protocol_file(task), "fast").hash[:8]
    pinned = dict(line.split() for line in (Path(__file__).parent / "fast_hashes.txt").read_text().splitlines())
    assert found == pinned


def test_hash_is_the_same_in_another_process():
    code = (
        "from benchmark.protocol import load_protocol; from benchmark.registry import *;"
        "print(load_protocol('depth', load_task('depth').schemas, protocol_file('depth'), 'fast').hash[:8])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    pinned = dict(line.split() for line in (Path(__file__).parent / "fast_hashes.txt").read_text().splitlines())
    assert done.stdout.strip() == pinned["depth"]


def numeric(hint: Any) -> list[tuple[type, Bounds | None]]:
    """The numbers in a field's type, each with its bounds."""
    if typing.get_origin(hint) is typing.Annotated:
        inner, bounds = typing.get_args(hint)
        return [(inner, bounds)] if inner in (int, float) else numeric(inner)
    if typing.get_origin(hint) is tuple:
        return numeric(typing.get_args(hint)[0])
    return [(hint, None)] if hint in (int, float) else []


def test_no_protocol_can_be_changed_once_it_is_made() -> None:
    schemas = [schema for task in tasks() for schema in load_task(task).schemas.values()]
    assert len(schemas) > 11
    assert [s.__name__ for s in schemas if not s.__dataclass_params__.frozen] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", list(tasks()))
def test_every_number_of_every_protocol_has_bounds_and_is_refused_outside(task):
    """By the preset's file and by --set: NaN, infinities, and what lies below or above."""
    loaded, tried = load_task(task), 0
    for name in presets(protocol_file(task)):
        schema = type(load_protocol(task, loaded.schemas, protocol_file(task), name).values)
        for field, hint in typing.get_type_hints(schema, include_extras=True).items():
            for number, bounds in numeric(hint):
                assert bounds is not None, f"{schema.__name__}.{field} has no bounds"
                many = "tuple" in str(hint)
                wrong = ["nan", "-nan", "inf", "-inf", "1e999", "1" + "0" * 400] if number is float else ["0.5", "true"]
                ends = [(bounds.low, bounds.above, -1), (bounds.high, bounds.below, 1)]
                wrong += [str(number(end)) for end, open_, _ in ends if open_]
                wrong += [str(number(end) + step) for end, _, step in ends if math.isfinite(end)]
                for text in wrong:
                    said = f"[{text}]" if many else text
                    with pytest.raises(UsageError, match=f"--set {field}: .* (must|is)"):
                        load_protocol(task, loaded.schemas, protocol_file(task), name, {field: said})
                    tried += 1
    assert tried


@pytest.mark.parametrize(
    ("task", "preset", "text"),
    [
        ("classification", "fast", "temperature=0"), ("classification", "fast", "temperature=-0.0"),
        ("classification", "fast", "penalties=[]"), ("classification", "dinov2", "learning_rates=[0.1, 0]"),
        ("zero_shot_segmentation", "tcl", "temperature=nan"), ("zero_shot_segmentation", "tcl", "stride=0"),
        ("depth", "fast", "min_depth=inf"), ("depth", "fast", "holdout=1"), ("depth", "paper", "max_depth=0.001"),
        ("depth", "fast", "max_depth=0.0001"), ("linear_segmentation", "paper", "learning_rate=0"),
        ("linear_segmentation", "fast", "penalties=[0.0]"), ("normals", "paper", "beta2=1"),
    ],
)  # fmt: skip
def test_numbers_that_would_make_a_row_of_nonsense_are_refused(task, preset, text):
    name, _, value = text.partition("=")
    with pytest.raises(UsageError, match=f"{name}"):
        load_protocol(task, load_task(task).schemas, protocol_file(task), preset, {name: value})


SPECIAL = """
[base.moon]
k = { value = 9, status = "confirmed", source = "elsewhere" }

[base.mars]
base = "child"
mode = { value = "b", status = "confirmed", source = "elsewhere" }
"""


def test_a_preset_may_differ_on_a_dataset(file):
    file.write_text(TOML + SPECIAL)
    schemas = {"toy": Toy}
    assert variants(file, "base") == ["moon", "mars"]
    elsewhere = load_protocol("toy", schemas, file, "base", None, "earth")
    assert elsewhere.values == load(file).values == Toy(3, 1.0, "a", (1, 2))
    moon = load_protocol("toy", schemas, file, "base", {"rate": "2"}, "moon")
    assert moon.values == Toy(9, 2.0, "a", (1, 2)) and moon.origins["k"].source == "elsewhere"
    assert load_protocol("toy", schemas, file, "base", None, "mars").values == Toy(4, 1.0, "b", (1, 2))
    file.write_text(TOML + SPECIAL.replace('"child"', '"nobody"'))
    with pytest.raises(UsageError, match=r"toy.toml \[base.mars\]: base 'nobody' is no preset"):
        load_protocol("toy", schemas, file, "base", None, "mars")


@dataclass(frozen=True)
class WithFile:
    weights: FileDigest


def test_a_file_counts_by_its_content_not_by_its_place(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    path = tmp_path / "w.toml"
    path.write_text('[p]\nschema = "w"\nweights = { value = "", status = "confirmed", source = "none" }\n')

    def at(where: str | None):
        overrides = {"weights": where} if where else None
        return load_protocol("w", {"w": WithFile}, path, "p", overrides)

    first, second = at(str(tmp_path / "a")), at(str(tmp_path / "b"))
    assert first.hash == second.hash != at(None).hash
    assert first.values.weights.path == tmp_path / "a" and not at(None).values.weights
    assert first.fields()["weights"]["value"].startswith("sha256:7692c3ad3540bb803c02")
    with pytest.raises(UsageError, match="--set weights: .*: cannot be read"):
        at(str(tmp_path / "c"))


def test_a_field_set_to_what_it_is_leaves_the_preset_what_it_is():
    schemas, file = load_task("depth").schemas, protocol_file("depth")
    plain = load_protocol("depth", schemas, file, "fast")
    same = load_protocol("depth", schemas, file, "fast", {"bins": "256"})
    other = load_protocol("depth", schemas, file, "fast", {"bins": "64"})
    assert (same.name, same.hash, same.origins) == (plain.name, plain.hash, plain.origins)
    assert other.name == "fast+set" and other.hash != plain.hash


@pytest.mark.parametrize(
    ("task", "preset", "dataset", "change", "message"),
    [
        ("classification", "fast", None, "view_size=224", "view_size = 224 does nothing with view = encoder"),
        ("classification", "paper", None, "crop=224", "crop = 224 does nothing with view = encoder"),
        (
            "classification",
            "paper",
            None,
            "view=square view_size=224 crop=9",
            "crop = 9 does nothing with view = square",
        ),
        ("image_to_text_retrieval", "paper", None, "view_size=224", "view_size = 224 does nothing"),
        ("zero_shot_classification", "paper", None, "view_size=224", "view_size = 224 does nothing"),
        ("instance_retrieval", "paper", None, "view_size=224", "view_size = 224 does nothing"),
        ("linear_segmentation", "fast", None, "view=encoder view_size=48", "view_size = 48 does nothing"),
        ("zero_shot_segmentation", "paper", None, "threshold=0.3", "does nothing with background = text"),
        ("zero_shot_segmentation", "fast", None, "threshold=0.3", "does nothing with background = text"),
        ("zero_shot_segmentation", "paper", None, "temperature=0.01", "does nothing with softmax = false"),
        ("zero_shot_segmentation", "fast", None, "softmax=true", "softmax does nothing with mode = whole"),
        ("normals", "paper", None, "with_cls=false", "a DPT head reads the CLS of every layer"),
        ("depth", "paper", "navi", "batch_norm=true", "a DPT head has none"),
    ],
)
def test_a_field_that_would_do_nothing_is_refused(task, preset, dataset, change, message):
    """It would give a row of another hash with the numbers of the old one."""
    schemas, changes = load_task(task).schemas, dict(part.split("=") for part in change.split())
    with pytest.raises(UsageError, match=message):
        load_protocol(task, schemas, protocol_file(task), preset, changes, dataset)


def test_sizes_and_thresholds_are_taken_where_they_do_something():
    taken = {
        "instance_retrieval": {"view": "short-side", "view_size": "224"},
        "classification": {"view": "short-side", "view_size": "256", "crop": "224", "interpolation": "bicubic"},
        "zero_shot_segmentation": {"background": "threshold", "threshold": "0.2"},
    }
    for task, changes in taken.items():
        found = load_protocol(task, load_task(task).schemas, protocol_file(task), "paper", changes)
        assert [str(getattr(found.values, name)) for name in changes] == list(changes.values())


def test_statuses_say_where_a_peers_preset_departs_from_its_code():
    """Read against DINOv3's notebook and transforms.py and TCL's configurations."""

    def open_fields(task, preset):
        return load_protocol(task, load_task(task).schemas, protocol_file(task), preset).not_confirmed()

    assert open_fields("zero_shot_segmentation", "dinov3") == ["background"]  # the notebook has the rest
    assert {"softmax", "temperature", "templates", "threshold"} == set(open_fields("zero_shot_segmentation", "tcl"))
    assert open_fields("linear_segmentation", "dinov3") == ["voc_train"]  # only ADE20K has a configuration
    for task in tasks():
        for name in presets(protocol_file(task)):
            found = load_protocol(task, load_task(task).schemas, protocol_file(task), name)
            departs = [field for field, origin in found.origins.items() if "DEVIATION" in origin.source]
            assert set(departs) <= set(found.not_confirmed()), (task, name)
