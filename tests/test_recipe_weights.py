"""Official weights as a run's start and as its teacher, in every form they are published in."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import tips_layouts as tips
import torch
from recipe_fixtures import tiny
from safetensors.torch import load_file, save_file

from adapters.tipsv2.checkpoint import load
from adapters.tipsv2.export import export
from adapters.tipsv2.recipe import trainer
from adapters.tipsv2.recipe.checkpoint import checkpoints
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.distill import frozen_teacher
from adapters.tipsv2.recipe.export import load_weights
from adapters.tipsv2.recipe.model import Pretrainer, vision_tokens
from adapters.tipsv2.recipe.stop import Stopped
from adapters.tipsv2.recipe.tokens import run_tokenizer
from adapters.tipsv2.recipe.trainer import train
from adapters.tipsv2.recipe.weights import model_config, read_sizes, spec_of
from adapters.tipsv2.torch_encoder import build_model
from adapters.tipsv2.variants import Architecture
from benchmark.errors import UsageError, WeightsError
from benchmark.registry import models

FORMS = ("torch-npz", "scenic-npz", "hub", "native", "sharded")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same kind of weights in five forms; a SwiGLU tower, as that of g."""
    root, row = tmp_path_factory.mktemp("published"), tips.arch_row("g")
    made = {
        "torch-npz": tips.write_pair(root / "torch", row),
        "scenic-npz": tips.write_pair(root / "sc", row, "scenic"),
    }
    spec = tips.spec(made["torch-npz"], row)
    export(spec, "transformers", root / "hub")
    loaded = load(spec)
    for name in ("native", "sharded"):
        shutil.copytree(root / "hub", root / name)
        state = {k: v.clone() for k, v in loaded.state_dict().items()}
        save_file(state, root / name / "model.safetensors", metadata={"format": "pt"})
    tensors, shards = load_file(root / "hub" / "model.safetensors"), root / "sharded"
    (shards / "model.safetensors").unlink()
    parts = {k: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, k in enumerate(tensors)}
    for part in set(parts.values()):
        save_file({k: v for k, v in tensors.items() if parts[k] == part}, shards / part, metadata={"format": "pt"})
    (shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    for name in ("torch-npz", "scenic-npz"):  # names of ours, so config.json says how large they are
        shutil.copy(root / "hub" / "config.json", made[name])
    return {**made, **{name: root / name for name in ("hub", "native", "sharded")}}


def config_of(folder: Path, **changes: object) -> RecipeConfig:
    sizes = read_sizes("init_from", str(folder))
    fields = {f"model__{k}": v for k, v in vars(sizes).items()}
    small = {"views__global_size": 28, "views__local_size": 14, "train__steps": 1}
    return tiny(**{**fields, "train__checkpoint_every": 0, **small, **changes})


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_starts_a_run_with_its_own_features(published: dict[str, Path], form: str) -> None:
    folder = published[form]
    student = Pretrainer(config_of(folder))
    student.initialise(0)
    load_weights("init_from", str(folder), student)
    checkpoint = load(spec_of("init_from", str(folder)))
    theirs = build_model(checkpoint)
    images, ids = torch.rand(2, 3, 28, 28), torch.randint(2, 290, (2, 7))
    with torch.no_grad():
        ours = torch.cat(vision_tokens(student.encoder.vision_model, images), 1)
        assert torch.equal(ours, theirs.vision_model(pixel_values=images).last_hidden_state)
        text = theirs.text_model(input_ids=ids, attention_mask=(ids != 0).long()).pooler_output
        torch.testing.assert_close(student.encode_text(ids), torch.nn.functional.normalize(text, dim=-1))
    assert float(student.temperature.detach()) == pytest.approx(checkpoint.temperature.item(), rel=1e-5)


def test_a_run_goes_on_from_official_weights_and_reads_text_with_their_tokenizer(
    published: dict[str, Path], tmp_path: Path
) -> None:
    folder = published["sharded"]
    final = train(config_of(folder, init_from=str(folder)), tmp_path / "out", quiet=True)
    assert (final / "tokenizer.model").read_bytes() == (folder / "tokenizer.model").read_bytes()


def test_a_start_without_a_tokenizer_or_with_another_ones_is_refused(
    published: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(published["hub"], folder)
    (folder / "tokenizer.model").unlink()
    with pytest.raises(WeightsError, match=r"init_from = .*: no tokenizer\.model in .*model\.tokenizer=FILE"):
        train(config_of(folder, init_from=str(folder)), tmp_path / "out", quiet=True)
    mine = train(tiny(train__steps=1), tmp_path / "mine", quiet=True) / "tokenizer.model"
    config = config_of(published["hub"], init_from=str(published["hub"]), model__tokenizer=str(mine))
    with pytest.raises(UsageError, match="is not that of init_from .*its text weights would read other ids"):
        run_tokenizer(config, None, tmp_path / "o", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__heads": 3}, "heads = 6 there, model.heads = 3 here"),
        ({"model__depth": 1}, "depth = 2 there, model.depth = 1 here"),
        ({"model__text_depth": 1}, "text_depth = 2 there, model.text_depth = 1 here"),
        ({"model__swiglu": False}, "swiglu = True there, model.swiglu = False here"),
    ],
)
def test_weights_of_other_sizes_are_named_not_cut(
    published: dict[str, Path], changes: dict[str, object], message: str
) -> None:
    """Heads are in no tensor's shape, and a shallower model would take the first blocks."""
    with pytest.raises(WeightsError, match=message):
        load_weights("init_from", str(published["hub"]), Pretrainer(config_of(published["hub"], **changes)))


@pytest.mark.parametrize("form", ["scenic-npz", "hub"])
def test_a_narrower_student_learns_from_official_weights_through_a_warmed_projector(
    published: dict[str, Path], tmp_path: Path, form: str
) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(published[form], folder)
    (folder / "tokenizer.model").unlink()  # a teacher reads no text
    changes = {"teacher__path": str(folder), "teacher__heads": "warm", "teacher__warmup_steps": 3}
    config = tiny(
        model__patch_size=14,
        model__image_size=28,
        views__global_size=28,
        views__local_size=14,
        train__steps=2,
        **changes,
    )
    final = train(config, tmp_path / "out", quiet=True)
    warmed = tmp_path / "out" / "projector"
    lines = [json.loads(line) for line in (warmed / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3] and lines[0]["contrastive"] == 0
    kept = load_file(warmed / "final" / "heads.safetensors")
    assert kept["patch.mlp.0.weight"].shape == (16, 96)
    assert not (warmed / "final" / "model.safetensors").exists(), "its towers are the teacher's"
    for run, frozen_part in ((warmed, "student/encoder."), (tmp_path / "out", "teacher/vision.")):
        tensors = load_file(checkpoints(run)[-1] / "state.safetensors")
        assert not any(name.startswith(frozen_part) for name in tensors), "what is frozen is in no checkpoint"
    again = train(config, tmp_path / "out", quiet=True)
    assert (again / "model.safetensors").is_file()
    frozen = frozen_teacher(config, warmed / "final" / "heads.safetensors")
    assert frozen is not None
    head: Any = frozen.heads["patch"]
    assert torch.equal(head.mlp[0].weight, kept["average/heads.patch.mlp.0.weight"])
    assert load_file(final / "model.safetensors")["vision_model.embeddings.cls_token"].shape[-1] == 16


def test_a_signal_in_the_last_step_of_the_projector_ends_the_run(published: dict[str, Path], tmp_path: Path) -> None:
    """The projector is finished all the same; the distillation that follows would take days."""
    sizes = {"model__patch_size": 14, "model__image_size": 28, "views__global_size": 28, "views__local_size": 14}
    teacher = {"teacher__path": str(published["hub"]), "teacher__heads": "warm", "teacher__warmup_steps": 3}
    config = tiny(train__steps=2, **sizes, **teacher)
    original, ran = trainer.backward, []

    def backward(*args: Any) -> Any:
        ran.append(args[4])
        if ran == [0, 1, 2]:
            signal.raise_signal(signal.SIGTERM)
        return original(*args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trainer, "backward", backward)
        with pytest.raises(Stopped, match="stopped by SIGTERM when the projector was trained"):
            train(config, tmp_path, quiet=True)
        assert ran == [0, 1, 2] and (tmp_path / "projector" / "final" / "heads.safetensors").exists()
        train(config, tmp_path, quiet=True)
    assert ran == [0, 1, 2, 0, 1]


def test_a_projector_stays_that_of_its_teacher(published: dict[str, Path], tmp_path: Path) -> None:
    """A refused run leaves it as it was: else the student's run could not go on."""
    sizes = {"model__patch_size": 14, "model__image_size": 28, "views__global_size": 28, "views__local_size": 14}
    warm = {"teacher__heads": "warm", "teacher__warmup_steps": 2}
    run = {"train__steps": 1, "teacher__path": str(published["hub"]), **sizes, **warm}
    train(tiny(**run), tmp_path, quiet=True)
    projector = {p: p.read_bytes() for p in (tmp_path / "projector").rglob("*") if p.is_file()}

    def refused(words: str, **changes: Any) -> None:
        with pytest.raises(UsageError, match=words):
            train(tiny(**run | changes), tmp_path)
        assert {p: p.read_bytes() for p in (tmp_path / "projector").rglob("*") if p.is_file()} == projector

    refused("teacher.warmup_steps was 2, is 3", teacher__warmup_steps=3)
    other = shutil.copytree(published["hub"], tmp_path / "other")
    for path in other.glob("*.safetensors"):
        save_file({k: v + 0.01 for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    refused("projector.*: the weights that it starts from are others", teacher__path=str(other))
    shutil.rmtree(tmp_path / "step-00000001")  # the student not begun
    refused("projector.*: the weights that it starts from are others", teacher__path=str(other))
    refused("teacher.warmup_steps = 1, but .*projector", teacher__warmup_steps=1)


@pytest.mark.parametrize("name", ["tipsv2-b", "tipsv2-l", "tipsv2-so400m", "tipsv2-g"])
def test_the_shipped_configs_have_the_sizes_of_the_published_weights(name: str) -> None:
    from adapters.tipsv2.recipe.config_file import read_config
    from adapters.tipsv2.recipe.weights import differences

    row = models()[name]
    found = Architecture.from_row(row)
    assert found is not None
    sizes = model_config(found)
    config = {"tipsv2-b": "continue-b", "tipsv2-g": "g-224"}.get(name, name.replace("tipsv2", "distil"))
    assert differences(sizes, read_config(config).model) == []
    assert read_sizes("init_from", row["hub"]) == read_sizes("init_from", name) == sizes


def test_an_embedded_model_is_a_teacher_by_its_name() -> None:
    from adapters.tipsv2.recipe.config_file import read_config

    config = read_config("distil-mini", {"teacher.path": "tipsv2-mini"})
    assert read_sizes("teacher.path", "tipsv2-mini").width == 128
    frozen = frozen_teacher(config)
    assert frozen is not None and set(frozen.heads) == {"cls", "patch"}


def test_averages_and_centres_of_projectors_travel_to_the_next_stage(tmp_path: Path) -> None:
    from adapters.tipsv2.recipe.parallel import joined
    from adapters.tipsv2.recipe.trainer import Trainer

    first = train(tiny(train__steps=3), tmp_path / "first", quiet=True)
    kept = load_file(first / "heads.safetensors")
    assert not torch.equal(kept["average/heads.patch.prototypes"], kept["patch.prototypes"])
    config = tiny(init_from=str(first), train__steps=1)
    with joined(config.train) as place:
        trainer = Trainer(config, tmp_path / "second", place, quiet=True)
    state = trainer.teacher.state_dict()
    assert kept["average/targets.patch.center"].any()
    for name, value in state.items():
        assert torch.equal(value, kept["average/" + name]), name
    head: Any = trainer.student.heads["patch"]
    assert torch.equal(head.prototypes.detach(), kept["patch.prototypes"])
