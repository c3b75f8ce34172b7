"""What a model is called in rows, and what makes its finished rows stale without loading it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from benchmark import load_encoder, registry
from benchmark.engine.identity import WORDS, display_name, model_stamp
from benchmark.engine.run import run
from benchmark.errors import UsageError
from benchmark.rows.row import read_all, slug
from benchmark.system.paths import reference_dir


def test_two_checkpoints_of_one_last_name_are_two_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [display_name("tipsv2-mini", f"{project}/{run}/final") for project in "pq" for run in ("a", "b")]
    names += [display_name("tipsv2-mini", "p/a-final"), display_name("tipsv2-mini", "/")]
    assert len({slug(name) for name in names}) == len(names)
    assert names[0].startswith("tipsv2-mini@a-final-") and all(name == slug(name) for name in names)
    assert display_name("tipsv2-mini", f"{tmp_path}/p/./a/final/") == names[0], "the place counts"


def test_files_of_one_name_in_two_projects_are_two_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = (display_name(f"{project}/enc.py:build", None) for project in "pq")
    assert slug(one) != slug(two) and one.startswith("enc-") and one.endswith(":build")
    same = [f"{tmp_path}/p/enc.py:build", "./p/enc.py:build"]
    assert {display_name(name, None) for name in same} == {one}
    assert len({model_stamp(name, None) for name in (*same, "p/enc.py:build")}) == 1, "rows are not made again"
    assert display_name("tipsv2-mini", None) == "tipsv2-mini"
    spellings = ("p/enc.py:build", "./p/enc.py:build", f"{tmp_path}/p/enc.py:build")
    assert len({model_stamp(name, None) for name in spellings}) == 1, "one row, made once"
    assert model_stamp("q/enc.py:build", None) != model_stamp("p/enc.py:build", None)


def test_hub_folders_of_one_name_in_two_projects_are_two_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("p/a/final", "q/a/final", "p/a-final"):
        (tmp_path / folder).mkdir(parents=True)
    names = [display_name(f"hf:{folder}", None) for folder in ("p/a/final", "q/a/final", "p/a-final")]
    monkeypatch.chdir(tmp_path / "q")
    names.append(display_name("hf:a-final", None))  # no folder here: a repository
    assert len({slug(name) for name in names}) == 4 and names[0].startswith("hf:a-final-") and names[3] == "hf:a-final"
    same = [f"hf:{tmp_path}/p/a/final", "hf:../p/a/final/"]
    assert {display_name(name, None) for name in same} == {names[0]}
    assert len({model_stamp(name, None) for name in same}) == 1, "one row, made once"


def test_modules_of_one_name_in_two_projects_are_two_models_and_nothing_is_imported(tmp_path, monkeypatch):
    names = []
    for project in ("p", "q", "p", "lib/site-packages"):
        package = tmp_path / project / "my_encoders"
        package.mkdir(parents=True, exist_ok=True)
        for file in ("__init__.py", "vit.py"):
            (package / file).write_text("raise SystemExit")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / project)
            names.append(display_name("my_encoders.vit:build", None))
            assert "my_encoders" not in sys.modules
    one, two, again, installed = names
    assert one == again and slug(one) != slug(two) and one.startswith("my_encoders.vit-") and one.endswith(":build")
    assert installed == display_name("my_encoders.vit:build", None) == "my_encoders.vit:build", "one name, one package"


@pytest.mark.parametrize(
    ("named", "edited"),
    [
        ("step-200.safetensors", "step-200.safetensors"),
        ("step-200.safetensors", "config.json"),
        ("step-200.safetensors", "tokenizer.model"),
        ("m_vision.npz", "m_text.npz"),
        ("m_text.npz", "m_vision.npz"),
        ("m_vision.npz", "tokenizer.model"),
    ],
)
def test_a_named_weight_file_is_stale_with_what_is_read_beside_it(tmp_path, named, edited):
    files = ["step-200.safetensors", "step-100.safetensors", "m_vision.npz", "m_text.npz", "config.json"]
    for file in [*files, "tokenizer.model", "metrics.jsonl"]:
        (tmp_path / file).write_text("a")
    before = model_stamp("tipsv2-b", str(tmp_path / named))
    for file in ("step-100.safetensors", "metrics.jsonl"):
        (tmp_path / file).write_text("another one's")
    assert model_stamp("tipsv2-b", str(tmp_path / named)) == before
    (tmp_path / edited).write_text("edited")
    assert model_stamp("tipsv2-b", str(tmp_path / named)) != before


def test_another_word_about_a_model_leaves_its_rows(monkeypatch):
    table = registry.models()
    assert set(WORDS) - {"note"} <= {key for row in table.values() for key in row}
    before = model_stamp("clip-b32", None)
    for changes, same in (
        (dict.fromkeys(WORDS, "other"), True),
        ({"revision": "0" * 40}, False),
        ({"transform": {**table["clip-b32"]["transform"], "size": 336}}, False),
    ):
        changed = {**table, "clip-b32": {**table["clip-b32"], **changes}}
        monkeypatch.setattr("benchmark.engine.identity.models", lambda changed=changed: changed)
        assert (model_stamp("clip-b32", None) == before) == same, changes


def test_only_what_hf_names_as_a_folder_is_one(tmp_path, monkeypatch):
    before = {name: model_stamp(name, None) for name in ("tipsv2-b", "timm:vit", "hf:own")}
    for folder in ("tipsv2-b", "timm:vit", "own"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    changed = [name for name in before if model_stamp(name, None) != before[name]]
    assert changed == ["hf:own"], "a folder that happens to be called as a model is not read"


def test_a_version_is_kept_for_every_adapter_and_for_nothing_else():
    targets = [row["target"] for row in registry.models().values()] + list(registry.PREFIXES.values())
    assert set(registry.code_versions()) == {target.partition(":")[0] for target in targets}


def test_the_adapters_take_their_version_from_the_table():
    import adapters.clip
    import adapters.dino
    import adapters.hub
    import adapters.siglip

    versions = registry.code_versions()
    found = {
        "adapters.clip": adapters.clip.Clip.code_version,
        "adapters.dino": adapters.dino.Dino.code_version,
        "adapters.hub": adapters.hub.GenericVision.code_version,
        "adapters.siglip": adapters.siglip.Siglip.code_version,
        **{m: load_encoder(name).card.code_version for m, name in (("adapters.floors", "pixels"),
                                                                   ("adapters.tipsv2", "tipsv2-mini"))},
    }  # fmt: skip
    assert found == {module: versions[module] for module in found}
    literal = [p for p in Path(adapters.clip.__file__).parent.rglob("*.py") if 'ode_version="' in p.read_text()]
    assert not literal, "a version written into code is not seen by finished rows"


@pytest.mark.parametrize(
    ("module", "stale", "kept"),
    [
        ("adapters.floors", ["pixels", "random-vit", "hf:a/b"], ["tipsv2-b", "timm:x", "own.py:build"]),
        ("adapters.tipsv2", ["tipsv2-b", "tipsv2-mini", "hf:a/b"], ["pixels", "clip-b16"]),
        ("adapters.timm_models", ["timm:x"], ["pixels", "open_clip:x/y", "hf:a/b"]),
    ],
)
def test_a_raised_version_changes_the_stamp_of_its_models_alone(monkeypatch, module, stale, kept):
    before = {name: model_stamp(name, None) for name in (*stale, *kept)}
    raised = {**registry.code_versions(), module: "7"}
    monkeypatch.setattr(registry, "code_versions", lambda: raised)
    after = {name: model_stamp(name, None) for name in before}
    assert [name for name in before if after[name] != before[name]] == stale


def test_what_another_release_of_an_adapter_measured_is_not_handed_out():
    """timm pads 384 pixels to 392 no more; local weights of open_clip have the activation of their tag."""
    changed = {"timm:vit_so400m_patch14_siglip_384": "timm_models", "open_clip:ViT-B-32/openai": "open_clip_models"}
    for name, module in changed.items():
        assert int(registry.code_versions_of(name)[f"adapters.{module}"]) >= 2


def test_a_run_asks_for_what_the_shipped_rows_answer(tmp_path, monkeypatch):
    """What moves a stamp, a protocol or the digest of `scenes` makes all rows again, and the shipped ones too."""

    def unopened(name, *_, **__):
        raise UsageError(f"{name} is opened")

    monkeypatch.setattr("benchmark.engine.session.open_encoder", unopened)
    shipped = shutil.copytree(reference_dir(), tmp_path / "r")
    models = sorted(path.name for path in shipped.iterdir())
    report = run(models, suite="scenes", results=shipped, cache=tmp_path / "c")
    assert report.reused == len(read_all(reference_dir())[0]) == 41
    assert not report.failures


def test_a_raised_version_makes_finished_rows_stale(tmp_path, monkeypatch):
    def reused() -> int:
        options = {"limit": 24, "results": tmp_path / "r", "cache": tmp_path / "c", "check": False}
        return run("pixels", "instance_retrieval/scenes", **options).reused

    assert [reused(), reused()] == [0, 1]
    raised = {**registry.code_versions(), "adapters.floors": "7"}
    monkeypatch.setattr(registry, "code_versions", lambda: raised)
    assert [reused(), reused()] == [0, 1]


def test_a_task_whose_version_was_raised_makes_its_rows_again(tmp_path, monkeypatch):
    def reused(name: str) -> int:
        options = {"limit": 24, "results": tmp_path / "r", "cache": tmp_path / "c", "check": False}
        return run("pixels", f"{name}/scenes", **options).reused

    assert [reused("instance_retrieval"), reused("instance_retrieval"), reused("classification")] == [0, 1, 0]
    raised = {**registry.tasks(), "instance_retrieval": {**registry.tasks()["instance_retrieval"], "version": 7}}
    monkeypatch.setattr("benchmark.engine.slots.tasks", lambda: raised)
    assert [reused("instance_retrieval"), reused("instance_retrieval"), reused("classification")] == [0, 1, 1]
