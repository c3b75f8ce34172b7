"""The run: data, student, teacher, optimiser, steps, checkpoints, export. The same call again resumes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from adapters.tipsv2.recipe.checkpoint import (
    READINGS,
    TOKENIZER,
    Found,
    checkpoints,
    module_tensors,
    newest_whole,
    optimizer_tensors,
    restore_module,
    restore_optimizer,
    save_checkpoint,
    whole,
)
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_file import from_table
from adapters.tipsv2.recipe.distill import check_teacher, frozen_teacher, projector_config, warms_up
from adapters.tipsv2.recipe.evaluation import Run, evaluate
from adapters.tipsv2.recipe.export import export_folder, exported, load_averages, load_weights
from adapters.tipsv2.recipe.guards import Guards
from adapters.tipsv2.recipe.journal import Journal
from adapters.tipsv2.recipe.loader import Positions, steps_from
from adapters.tipsv2.recipe.model import Pretrainer
from adapters.tipsv2.recipe.objective import assignment_entropy
from adapters.tipsv2.recipe.optim import make_optimizer, set_learning_rate
from adapters.tipsv2.recipe.parallel import Place, joined, mean_over_processes, wrap
from adapters.tipsv2.recipe.resume import SHARES, changed, leaves, same_lengths
from adapters.tipsv2.recipe.samples import Renderer, ids_digest, open_source
from adapters.tipsv2.recipe.schedule import learning_rate
from adapters.tipsv2.recipe.step import backward, precision
from adapters.tipsv2.recipe.stop import Asked, Stopped, listening
from adapters.tipsv2.recipe.teacher import Teacher
from adapters.tipsv2.recipe.tokens import run_tokenizer
from adapters.tipsv2.recipe.validation import retrieval
from adapters.tipsv2.recipe.weights import head_file, spec_of
from benchmark.errors import DataError, UsageError
from benchmark.system.files import writable
from benchmark.system.plurals import number_of


def train(
    config: RecipeConfig, out: Path, quiet: bool = False, *, render: Renderer | None = None, run: Run | None = None
) -> Path:
    """Trains into folder `out` and returns `out`/final, a transformers folder; resumes from the newest checkpoint.

    `render` (`tasks.scenes.render.render`) draws the samples of `data.source = "scenes"`, `run` (`benchmark.run`)
    scores what `train.evaluate_every` asks for. Raises UsageError where the config asks for one that is not given.
    """
    with joined(config.train, config.loss.ssl_every) as place:
        return Trainer(config, out, place, quiet, render, run).run()


def _check_folders(config: RecipeConfig, out: Path) -> None:
    """Raises UsageError for weights that are not there or do not fit and a folder that cannot be written, before any
    data are made or read."""
    if config.init_from:
        spec_of("init_from", config.init_from)
    if config.teacher.path:
        check_teacher(config)
    writable(out, "a run", "--out")


class Trainer:
    """Holds what a checkpoint holds."""

    def __init__(
        self,
        config: RecipeConfig,
        out: Path,
        place: Place,
        quiet: bool = False,
        render: Renderer | None = None,
        run: Run | None = None,
    ) -> None:
        self.out, self.place, self.quiet, self.score = out, place, quiet, run
        if config.train.evaluate_every and run is None:
            raise UsageError(
                f"train.evaluate_every = {config.train.evaluate_every} needs the engine. Train with `bench train`, or "
                "train(…, run=benchmark.run)"
            )
        _check_folders(config, out)
        self.source = open_source(config.data, render)
        self.tokenizer, config = run_tokenizer(config, self.source, out, place)
        self.asked, self.config = config, config  # as it was asked for, and with the lengths that a resume keeps
        found = self._found()
        projectors = None
        if warms_up(config):
            before = Trainer(projector_config(config), out / "projector", place, quiet, render)
            projectors = before.run() / "heads.safetensors"
            if why := before.told():
                raise Stopped(f"stopped by {why} when the projector was trained. The same command goes on from there")
        self.student = Pretrainer(config)
        if place.device.type == "cpu" and place.dtype == torch.bfloat16:
            # The fused kernel's bf16 backward is slow on a CPU; plain matrix products are 1.9 times faster a step.
            self.student.encoder.set_attn_implementation("eager")
        self.student.initialise(config.train.seed)
        if config.init_from:
            load_weights("init_from", config.init_from, self.student)
        self.student.to(place.device)
        frozen = frozen_teacher(config, projectors)
        self.taught_by = frozen.source if frozen else ""
        self.teacher = Teacher(config, self.student, frozen).to(place.device)
        if config.init_from and not config.teacher.path and (heads := head_file(config.init_from)):
            load_averages(heads, self.teacher)
        self.model = wrap(self.student, config.train, place)
        self.optimizer = make_optimizer(self.student.named_parameters(), config.optim)
        self.guards = Guards(config)
        self.step, self.bad, self.without_alt, self.seconds = 0, 0, 0, 0.0
        self.saved = 0
        self.signal: Asked | None = None  # from the first batch on
        self.changes: list[dict[str, Any]] = []
        self.bases = dict.fromkeys(SHARES, config.train.steps)  # the steps that shares of the run are of
        readings = self._resume(found) if found else None
        self.journal = Journal(
            out, config.train.steps, config.train.batch_size, self.step, quiet, place.first, readings
        )

    def run(self) -> Path:
        """Steps until the end; returns the exported folder. From its first batch on a signal is answered by a
        checkpoint, or where the end is near by the end, and `told` names it."""
        with contextlib.ExitStack() as held:
            self._steps(held)
            final = self._export("final")
        if self.place.first:
            self.journal.plot()
            if self.config.train.keep == 0:
                for kept in checkpoints(self.out):
                    shutil.rmtree(kept)
        return final

    def told(self) -> str:
        """The signal that any process of the run has had; "" for none."""
        name = self.signal.name if self.signal else ""  # what comes from here on all processes answer the next time
        had = mean_over_processes(torch.tensor(float(bool(name)), device=self.place.device), self.place)
        return (name or "a signal to another process") if had else ""

    def _steps(self, held: contextlib.ExitStack) -> None:
        train = self.config.train
        begun = time.perf_counter() - self.seconds
        batches = steps_from(
            self.step, Positions(self.source, self.config), self.tokenizer, self.place.rank, self.place.world
        )
        for batch, bad in batches:
            self.signal = self.signal or held.enter_context(listening())
            self._count_bad(bad)
            assert batch is not None  # else more samples are bad than _count_bad lets pass
            terms = self._one_step(batch.to(self.place.device))
            self.seconds = time.perf_counter() - begun
            if self.step % train.log_every == 0 or self.step == train.steps:
                self._log(terms)
            if self._due(train.validate_every):
                self._validate()
            if self._due(train.evaluate_every):
                folder = self._export("evaluate")
                if self.place.first and self.score:
                    self.journal.note({"step": self.step, **evaluate(self.score, folder, self.out)})
            # Last: what a kill cuts short before it is done again.
            if train.keep and (self._due(train.checkpoint_every) or self.step == train.steps):
                self._save()
            if (why := self.told()) and self.step < train.steps:
                if self.saved != self.step:
                    self._save()
                raise Stopped(
                    f"stopped by {why} after step {self.step} of {train.steps}; the checkpoint is"
                    f" {self.out / f'step-{self.step:08d}'}. The same command goes on from there"
                )

    def _one_step(self, batch: Any) -> dict[str, torch.Tensor]:
        config = self.config
        set_learning_rate(self.optimizer, learning_rate(self.step, config.train.steps, config.optim))
        self.optimizer.zero_grad(set_to_none=True)
        half = precision(self.place.device.type, self.place.dtype == torch.bfloat16)
        terms = backward(self.model, self.teacher, batch, config, self.step, half)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.student.parameters(), config.optim.clip or math.inf))
        told = torch.stack([terms["loss"], terms.pop("no_alt"), norm.reshape(())])  # processes must stop together
        loss, no_alt, norm = mean_over_processes(told, self.place)
        terms["loss"] = loss
        if no_alt == 1 and self.without_alt == self.step * config.train.batch_size and not config.model.frozen:
            raise DataError(
                f"step {self.step + 1}: no sample so far has an alt text (data.alt = {config.data.alt!r})."
                ' Name its column, or set loss.captions = "synthetic"'
            )
        self.without_alt += round(float(no_alt) * config.train.batch_size)
        kept = checkpoints(self.out)
        self.guards.check_finite(float(loss), float(norm), self.step + 1, str(kept[-1]) if kept else "")
        self.optimizer.step()
        self.teacher.update(self.student, self.step)
        self.step += 1
        return terms

    def _log(self, terms: dict[str, torch.Tensor]) -> None:
        means: dict[str, float] = {}
        for name, term in terms.items():
            mean = mean_over_processes(term.detach(), self.place)
            kind, _, head = name.partition("_")
            if kind == "assignment":
                means[f"entropy_{head}"] = float(assignment_entropy(mean))
            else:
                means[name] = float(mean)
        self.guards.check_health(means, self.step)
        means["temperature"] = float(whole(self.student.temperature.detach()))
        if self.place.first:
            self.journal.add(self.step, means)

    def _validate(self) -> None:
        held_out = self.source.held_out(self.config.train.validate_samples)
        if not held_out:
            return
        size = self.config.views.global_size
        found = retrieval(self.model, size, self.tokenizer, held_out, self.place.device)  # all processes: shards meet
        if self.place.first:
            self.journal.note({"step": self.step, "validation": found})
            if not self.quiet:
                print("   held-out R@1  " + "  ".join(f"{k} {v:.1f}" for k, v in found.items()), flush=True)

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _count_bad(self, messages: list[str]) -> None:
        self.bad += len(messages)
        if self.bad > self.config.data.max_bad:
            raise DataError(
                f"{self.bad} unreadable samples, data.max_bad = {self.config.data.max_bad}; the last: {messages[-1]}"
            )

    def _save(self) -> None:
        tensors = module_tensors("student", self.student, self.student.left_out)
        tensors |= module_tensors("teacher", self.teacher, self.teacher.frozen)
        tensors |= optimizer_tensors(self.student, self.optimizer)
        self.saved = self.step
        facts = {
            "asked": leaves(self.asked),
            "recipe": dataclasses.asdict(self.config),
            "bases": self.bases,
            "changes": self.changes,
            "samples": len(self.source),
            "ids": ids_digest(self.source),
            "teacher": self.taught_by,
            "began": self.student.source,
            "exported": self._facts(),
            "bad": self.bad,
            "without_alt": self.without_alt,
            "seconds": round(self.seconds, 1),
            "strikes": self.guards.strikes,
        }
        keep, tokenizer = self.config.train.keep, self.tokenizer.model
        save_checkpoint(self.out, self.step, tensors, facts, keep, self.journal.path, tokenizer, self.place)

    def _found(self) -> Found | None:
        """The newest whole checkpoint. Raises UsageError where the run cannot go on from it as it is asked for, before
        its projector is touched."""
        if found := newest_whole(self.out):
            path, _, facts = found
            if "asked" not in facts:
                raise UsageError(f"{path} was made by an older densebench. Give another --out, or remove {self.out}")
            changed(facts["asked"], self.asked, path, facts["step"])
        return found

    def _resume(self, found: Found) -> Path | None:
        """Goes back to a checkpoint; its readings, where it has some."""
        path, tensors, facts = found
        new = changed(facts["asked"], self.asked, path, facts["step"])
        for what, same in (
            (
                f"the data hold {number_of(len(self.source), 'sample')}, not {facts['samples']}: others",
                facts["samples"] == len(self.source),
            ),
            (
                "the samples, their order, or those of them that are left out are others",
                not facts.get("ids") or facts["ids"] == ids_digest(self.source),
            ),
            ("teacher.path names other weights", facts["teacher"] == self.taught_by),
            ("the weights that it starts from are others", facts.get("began") in (None, self.student.source)),
            ("the tokeniser is another one", (path / TOKENIZER).read_bytes() == self.tokenizer.model),
        ):
            if not same:
                raise UsageError(f"{path}: {what} than when it was made. Name the same, or give another --out")
        says = self.place.first and not self.quiet
        if facts["step"] == self.asked.train.steps:  # it is over: what it was trained with is written down as it was
            self.changes, self.bases = facts["changes"], facts["bases"]
            self._set(from_table(facts["recipe"], str(path)))
            if new and says:
                print(f"{self.out} is finished: {', '.join(c['field'] for c in new)} changes nothing there")
        else:
            self.changes = [*facts["changes"], *new]
            moved = {change["field"] for change in new}
            self.bases = {k: self.bases[k] if k in moved else steps for k, steps in facts["bases"].items()}
            self._set(same_lengths(self.asked, self.bases))
            for change in new if says else ():
                print(f"from step {change['step']}: {change['field']} = {change['to']!r}, it was {change['from']!r}")
        restore_module("student", self.student, tensors, path, self.student.left_out)
        restore_module("teacher", self.teacher, tensors, path, self.teacher.frozen)
        restore_optimizer(self.student, self.optimizer, tensors)
        self.step, self.bad, self.seconds = facts["step"], facts["bad"], facts["seconds"]
        self.without_alt = facts.get("without_alt", 0)
        self.guards.strikes = dict(facts["strikes"])
        return path / READINGS if READINGS in facts.get("files", {}) else None

    def _set(self, config: RecipeConfig) -> None:
        self.config = self.student.config = self.teacher.config = self.guards.config = config

    def _facts(self) -> dict[str, Any]:
        more: dict[str, Any] = {"changes": self.changes} if self.changes else {}
        if why := getattr(self.source, "why", None):
            more["left_out"] = why
        return {
            "config": self.config.digest(),
            "steps": self.step,
            "hours": round(self.seconds / 3600, 3),
            "bad_samples": self.bad,
            "samples_without_alt_text": self.without_alt,
            **more,
        }

    def _export(self, name: str) -> Path:
        student = {k: whole(v) for k, v in self.student.state_dict().items() if not k.startswith(self.student.left_out)}
        teacher = {k: whole(v) for k, v in self.teacher.state_dict().items()}
        encoder, heads = exported(student, teacher, self.config)
        if self.place.first:
            export_folder(self.out / name, encoder, heads, self.student, self.tokenizer.model, self._facts())
        return self.out / name
