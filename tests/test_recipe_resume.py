"""Resume is bit-identical, also after kill -9; a failed run keeps its last good checkpoint."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from recipe_fixtures import Squares, tiny
from safetensors import SafetensorError

from adapters.tipsv2.recipe import stop, trainer
from adapters.tipsv2.recipe.checkpoint import checkpoints, load_checkpoint, write_tensors
from adapters.tipsv2.recipe.guards import CollapseError, DivergenceError
from adapters.tipsv2.recipe.journal import Journal
from adapters.tipsv2.recipe.resume import changed, leaves
from adapters.tipsv2.recipe.samples import Sample
from adapters.tipsv2.recipe.stop import Stopped
from adapters.tipsv2.recipe.trainer import train
from benchmark.errors import BenchError, DataError, UsageError
from benchmark.system.sealed import Damaged

HERE = Path(__file__).parent
FILES = ("model.safetensors", "heads.safetensors", "config.json", "tokenizer.model")


class Interrupted(Exception):
    pass


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    original, done = trainer.Trainer._one_step, [0]

    def one_step(self, batch):
        if done[0] == steps:
            raise Interrupted
        done[0] += 1
        return original(self, batch)

    monkeypatch.setattr(trainer.Trainer, "_one_step", one_step)


@pytest.mark.parametrize("optimiser", ["adamw", "adafactor"])
def test_resumed_run_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str) -> None:
    config = tiny(optim__name=optimiser, ema__scope="full" if optimiser == "adamw" else "head")
    straight = train(config, tmp_path / "straight", quiet=True)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 3)  # the newest checkpoint is at step 2
        with pytest.raises(Interrupted):
            train(config, tmp_path / "resumed", quiet=True)
    resumed = train(config, tmp_path / "resumed", quiet=True)
    for name in FILES:
        assert (straight / name).read_bytes() == (resumed / name).read_bytes(), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "resumed" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]


def test_nan_loss_stops_with_one_line_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer.backward

    def backward(*args):
        terms = original(*args)
        return terms | {"loss": terms["loss"] * (float("nan") if args[4] >= 5 else 1.0)}

    monkeypatch.setattr(trainer, "backward", backward)
    with pytest.raises(DivergenceError, match=r"step 6: the loss is nan\. The last good checkpoint is .*step-00000004"):
        train(tiny(), tmp_path, quiet=True)
    assert checkpoints(tmp_path)[-1].name == "step-00000004"


def test_collapse_is_stopped_with_its_reason(tmp_path: Path) -> None:
    config = tiny(guard__min_entropy=1.01, guard__patience=2, guard__after=0.0)  # above the maximum: always too low
    with pytest.raises(
        CollapseError, match="entropy_cls = .* stayed below .* for 2 readings: the features have collapsed"
    ):
        train(config, tmp_path, quiet=True)


def test_micro_batches_read_the_entropy_of_the_whole_batch(tmp_path: Path) -> None:
    """Two sharp rows have log(2) nats at most; that a micro-batch is small is no collapse."""
    readings = []
    for parts in (1, 4):
        config = tiny(train__steps=1, train__accumulate=parts, train__log_every=1, head__prototypes=512)
        train(config, tmp_path / str(parts), quiet=True)
        readings.append(json.loads((tmp_path / str(parts) / "metrics.jsonl").read_text().splitlines()[0]))
    for name in ("entropy_cls", "entropy_patch"):
        assert readings[1][name] == pytest.approx(readings[0][name], abs=1e-4)


def test_neither_micro_batches_nor_missing_texts_change_what_a_step_learns(tmp_path: Path) -> None:
    readings = []
    tokenizer = train(tiny(train__steps=1), tmp_path / "t", quiet=True) / "tokenizer.model"
    for parts in (1, 2, 4):
        config = tiny(
            train__steps=1, train__accumulate=parts, train__log_every=1, data__source="recipe_fixtures:open_silent",
            model__tokenizer=str(tokenizer),
        )  # fmt: skip
        final = train(config, tmp_path / str(parts), quiet=True)
        readings.append(json.loads((tmp_path / str(parts) / "metrics.jsonl").read_text().splitlines()[0]))
        missing = json.loads((final / "run.json").read_text())["samples_without_alt_text"]
        assert 3 <= missing <= 7
    for reading in readings[1:]:
        for name in ("loss", "contrastive", "feature_std", "patch"):
            assert reading[name] == pytest.approx(readings[0][name], rel=1e-6), name


def test_a_column_that_gives_no_alt_text_at_all_is_named(tmp_path: Path) -> None:
    tokenizer = train(tiny(train__steps=1), tmp_path / "t", quiet=True) / "tokenizer.model"
    data = {"data__source": "recipe_fixtures:open_silent", "data__samples": 96, "train__seed": 0}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("recipe_fixtures.Silent.load", _mute)
        with pytest.raises(DataError, match="step 1: no sample so far has an alt text .data.alt = 'alt'."):
            train(tiny(**data, model__tokenizer=str(tokenizer)), tmp_path / "given", quiet=True)
        with pytest.raises(DataError, match="none of 96 samples has an alt text .data.alt = 'alt'.. Name its column"):
            train(tiny(**data), tmp_path / "own", quiet=True)
        assert not (tmp_path / "own" / "tokenizer.model").exists()  # it would lack the words of alt texts
        train(tiny(**data, loss__captions="synthetic", train__steps=1), tmp_path / "own", quiet=True)


def _mute(self, index: int):  # type: ignore[no-untyped-def]
    sample = Squares.load(self, index)
    return Sample(sample.image, "", sample.synthetic)


def test_another_config_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    train(tiny(train__steps=2), tmp_path, quiet=True)
    said = r"was made with another config: loss.patch was 2.0, is 1.0; train.seed was 0, is 3. Set it as it was"
    with pytest.raises(UsageError, match=said):
        train(tiny(train__steps=2, loss__patch=1.0, train__seed=3), tmp_path, quiet=True)
    with pytest.raises(UsageError, match="train.steps = 1, but .*step-00000002 is at step 2"):
        train(tiny(train__steps=1), tmp_path, quiet=True)
    (grown := tmp_path / "grown").mkdir()
    (tmp_path / "step-00000002").rename(grown / "step-00000002")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("recipe_fixtures.Squares.__len__", lambda _: 95)
        with pytest.raises(UsageError, match="the data hold 95 samples, not 96: others than when it was made"):
            train(tiny(train__steps=2), grown, quiet=True)


def test_settings_that_change_nothing_learnt_may_change_and_are_recorded(tmp_path: Path) -> None:
    flat = {"optim__schedule": "trapezoid", "optim__warmup": 0.5, "optim__decay": 0.25, "train__log_every": 1}
    train(tiny(train__steps=4, **flat), tmp_path, quiet=True)
    prolonged = tiny(train__steps=8, train__accumulate=2, data__max_bad=3, guard__patience=50, **flat)
    for _ in range(2):  # the same command again changes nothing more
        final = train(prolonged, tmp_path, quiet=True)
    facts = json.loads((final / "run.json").read_text())
    assert {(c["step"], c["field"], c["from"], c["to"]) for c in facts["changes"]} == {
        (4, "train.steps", 4, 8), (4, "train.accumulate", 1, 2), (4, "data.max_bad", 0, 3),
        (4, "guard.patience", 20, 50),
    }  # fmt: skip
    assert json.loads((final / "recipe.json").read_text())["optim"]["warmup"] == 0.25, "two steps, as it was"
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        *range(1, 9)
    ]


def test_a_field_that_is_younger_than_the_checkpoint_was_as_it_is_by_default(tmp_path: Path) -> None:
    before = {k: v for k, v in leaves(tiny()).items() if k not in ("data.order", "train.compile")}
    assert changed(before, tiny(), tmp_path, 2) == []
    assert [c["from"] for c in changed(before, tiny(data__order="shards"), tmp_path, 2)] == ["samples"]


def test_a_finished_run_stays_what_it_was_trained_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    final = train(tiny(train__steps=2), tmp_path, quiet=True)
    written = {path.name: path.read_bytes() for path in final.iterdir()}
    train(tiny(train__steps=2, optim__lr=0.1, train__log_every=1), tmp_path)
    assert {path.name: path.read_bytes() for path in final.iterdir()} == written
    assert f"{tmp_path} is finished: optim.lr changes nothing there" in capsys.readouterr().out


def test_other_weights_to_start_from_are_refused_and_moved_ones_are_not(tmp_path: Path) -> None:
    first, other = (train(tiny(train__steps=1, train__seed=n), tmp_path / str(n), quiet=True) for n in (0, 1))
    started = {"train__steps": 2, "train__checkpoint_every": 1}
    train(tiny(init_from=str(first), **started), tmp_path / "run", quiet=True)
    with pytest.raises(UsageError, match="step-00000002: the weights that it starts from are others than when"):
        train(tiny(init_from=str(other), **started | {"train__steps": 3}), tmp_path / "run", quiet=True)
    moved = shutil.copytree(first, tmp_path / "moved")
    train(tiny(init_from=str(moved), **started | {"train__steps": 3}), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_ends_the_step_writes_a_checkpoint_and_changes_no_byte(tmp_path: Path, name: str) -> None:
    config = tiny(train__checkpoint_every=0, train__keep=0)
    calm = train(config, tmp_path / "calm", quiet=True)
    original = trainer.backward

    def backward(*args):  # type: ignore[no-untyped-def]
        if args[4] == 2:
            signal.raise_signal(signal.Signals[name])
        return original(*args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trainer, "backward", backward)
        with pytest.raises(
            Stopped, match=f"stopped by {name} after step 3 of 6; the checkpoint is .*step-00000003"
        ) as e:
            train(config, tmp_path / "told", quiet=True)
    assert e.value.exit_code == 143
    again = train(config, tmp_path / "told", quiet=True)
    assert all((calm / n).read_bytes() == (again / n).read_bytes() for n in FILES)
    assert checkpoints(tmp_path / "calm") == checkpoints(tmp_path / "told") == [], "train.keep = 0 keeps none"


def test_a_checkpoint_is_exported_as_the_run_would_end_there(tmp_path: Path) -> None:
    from adapters.tipsv2.recipe.export import export_checkpoint

    run = tmp_path / "run"
    train(tiny(train__steps=6), run, quiet=True)
    out = export_checkpoint(run / "step-00000006", tmp_path / "out")
    for name in (*FILES, "recipe.json", "run.json"):
        assert (out / name).read_bytes() == (run / "final" / name).read_bytes(), name
    with pytest.raises(BenchError, match="step-00000001: no checkpoint that can be exported"):
        export_checkpoint(run / "step-00000001", tmp_path / "gone")


@pytest.mark.parametrize("cut", ['{"step": 2, "lo', '{"step"', "\0\0"])
def test_a_reading_cut_short_at_the_end_is_dropped(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n{"step": 3, "loss": 0.3}\n' + cut)
    journal = Journal(tmp_path, steps=4, batch_size=8, start=2, quiet=True)
    journal.note({"step": 3, "loss": 0.2})
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [0.5, 0.4, 0.2]
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_reading_inside_is_one_line_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 2 is no JSON .*Remove that line to resume"):
        Journal(tmp_path, steps=4, batch_size=8, start=3)
    assert path.read_text() == '{"step": 1}\n{"st\n{"step": 3}\n'


def test_of_several_processes_the_first_alone_touches_the_readings(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3}\n')
    Journal(tmp_path, steps=4, batch_size=8, start=2, first=False)
    assert path.read_text() == '{"step": 3}\n'


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_training_goes_on_from_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    config = tiny(train__steps=4, train__checkpoint_every=2)
    calm = train(config, tmp_path / "calm", quiet=True)
    train(config, tmp_path / "flipped", quiet=True)
    newest = checkpoints(tmp_path / "flipped")[-1]
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / name).write_bytes(content)
    again = train(config, tmp_path / "flipped", quiet=True)
    assert f"{newest / name}: is damaged" in caplog.text
    assert [p.name for p in checkpoints(tmp_path / "flipped")] == ["step-00000002", "step-00000004"]
    assert all((again / n).read_bytes() == (calm / n).read_bytes() for n in FILES)


def test_a_checkpoint_from_before_there_were_digests_is_resumed_from(tmp_path: Path) -> None:
    train(tiny(train__steps=2), tmp_path, quiet=True)
    (state,) = tmp_path.glob("step-*/state.json")
    old = {k: v for k, v in json.loads(state.read_text()).items() if k not in ("schema", "files", "sha256")}
    state.write_text(json.dumps(old))
    assert load_checkpoint(state.parent)[1]["step"] == 2
    state.write_text(json.dumps({**old, "sha256": "0" * 64}))
    with pytest.raises(Damaged):
        load_checkpoint(state.parent)


def test_a_bad_sample_of_a_worker_process_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        train(tiny(data__path=",".join(map(str, range(48))), data__workers=1), tmp_path, quiet=True)
    assert re.fullmatch(
        r"\d+ unreadable samples, data\.max_bad = 0; the last: square \d+: cannot be read", str(caught.value)
    )


def test_a_device_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='train.device = "gpu" is no device'):
        train(tiny(train__device="gpu"), tmp_path, quiet=True)


def test_bad_samples_are_counted_and_limited(tmp_path: Path) -> None:
    one_epoch = tiny(train__steps=12, data__path="5,17", data__max_bad=9)
    final = train(one_epoch, tmp_path / "some", quiet=True)
    assert json.loads((final / "run.json").read_text())["bad_samples"] >= 2
    with pytest.raises(DataError, match="square 5: cannot be read|square 17: cannot be read"):
        train(tiny(train__steps=12, data__path="5,17"), tmp_path / "none", quiet=True)


def test_workers_do_not_change_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent}")
    config = tiny(train__steps=2)
    alone = train(config, tmp_path / "alone", quiet=True)
    entered = []
    monkeypatch.setattr("adapters.tipsv2.recipe.loader.deaf", lambda: entered.append(1) or stop.deaf())
    helped = train(tiny(train__steps=2, data__workers=1), tmp_path / "helped", quiet=True)
    assert entered, "workers are started where they do not hear what ends a job"
    assert (alone / "model.safetensors").read_bytes() == (helped / "model.safetensors").read_bytes()


def test_exported_folder_loads_in_transformers_with_equal_features(tmp_path: Path) -> None:
    from transformers import Tipsv2Model

    from adapters.tipsv2.recipe.export import load_weights
    from adapters.tipsv2.recipe.model import Pretrainer, vision_tokens
    from adapters.tipsv2.recipe.weights import recipe_of

    final = train(tiny(train__steps=2), tmp_path, quiet=True)
    student = Pretrainer(recipe_of(final))
    load_weights("init_from", str(final), student)
    loaded = Tipsv2Model.from_pretrained(final).eval()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        ours = vision_tokens(student.encoder.vision_model, images)
        theirs = loaded.vision_model(pixel_values=images).last_hidden_state
    assert torch.equal(torch.cat(ours, 1), theirs)
    assert float(loaded.temperature.detach()) == pytest.approx(float(student.temperature.detach()), rel=1e-6)


def test_readings_are_those_of_the_checkpoint_whatever_became_of_the_file(tmp_path: Path) -> None:
    config = tiny(train__steps=4, train__checkpoint_every=2)
    train(config, tmp_path, quiet=True)
    path = tmp_path / "metrics.jsonl"
    calm = path.read_bytes()
    path.write_bytes(calm.replace(b'"step": 2', b'"step": 3') + b'{"step": 9}\n\xff\n{')
    train(config, tmp_path, quiet=True)
    assert path.read_bytes() == calm


def test_what_a_kill_left_of_an_old_checkpoint_is_cleared(tmp_path: Path) -> None:
    for left in (".step-00000001.part", ".step-00000000.before.part"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "state.safetensors").write_bytes(b"half")
    train(tiny(train__steps=4, train__checkpoint_every=1, train__keep=2), tmp_path, quiet=True)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["final", "step-00000003", "step-00000004"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "config.json"])
def test_a_damaged_export_is_named_and_never_scored(tmp_path: Path, name: str) -> None:
    from benchmark import load_encoder

    final = train(tiny(train__steps=1), tmp_path / "run", quiet=True)
    content = bytearray((final / name).read_bytes())
    content[-20] ^= 1
    (final / name).write_bytes(content)
    with pytest.raises(BenchError, match=rf"{name}: .*(is damaged|is no JSON)"):
        load_encoder("tipsv2-mini", weights=str(final))
    if name == "model.safetensors":
        with pytest.raises(Damaged, match="model.safetensors: is damaged"):
            train(tiny(init_from=str(final)), tmp_path / "next", quiet=True)


def test_a_disk_that_is_full_within_a_checkpoint_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that writes tensors says so by an error of its own."""
    path, before = tmp_path / "state.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(BenchError, match=r"state.safetensors: cannot be written \(File too large\)"):
            write_tensors(path, {"x": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("adapters.tipsv2.recipe.checkpoint.save_file", full)
    with pytest.raises(BenchError, match="state.safetensors: the disk is full"):
        write_tensors(path, {"x": torch.zeros(1)})
