"""Training the linear head with mmengine's Runner: quiet, on our device, resumable to the step."""

from __future__ import annotations

import logging
import math
import multiprocessing
import uuid
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.contracts import Progress, TaskContext
from benchmark.errors import BenchError
from tasks.mm.checkpoint import Checkpoint, Curve, restore
from tasks.mm.crops import EncodedCrops
from tasks.mm.data import number, seeded
from tasks.mm.library import Hook, IterBasedTrainLoop, OptimWrapper, Runner, Visualizer
from tasks.mm.model import Segmentor
from tasks.mm.protocol import MmProbe
from tasks.mm.schedule import factor

POINTS = 200  # of the curve
UNUSED_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")


class ProbeLoop(IterBasedTrainLoop):  # type: ignore[misc]
    """mmengine's loop over a loader that begins where training does, so nothing is skipped by reading it."""

    def run(self) -> nn.Module:
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        batches = iter(self.dataloader)
        while self._iter < self._max_iters:
            self.runner.model.train()
            self.run_iter(next(batches))
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        model: nn.Module = self.runner.model
        return model


class ProbeRunner(Runner):  # type: ignore[misc]
    """A Runner that leaves the machine's settings alone and trains on the encoder's device."""

    device = "cpu"

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> nn.Module:
        return model.to(self.device)

    def _log_env(self, env_cfg: Any) -> None:
        """Rows hold the environment; asking compilers for their versions takes seconds."""


class ProbeHook(Hook):  # type: ignore[misc]
    """Learning rate, seeds, curve and checkpoints."""

    def __init__(self, protocol: MmProbe, seed: int, curve: Curve, checkpoint: Checkpoint, bar: Progress) -> None:
        self.protocol, self.seed, self.curve, self.checkpoint, self.bar = protocol, seed, curve, checkpoint, bar
        self.state = checkpoint.read()

    @property
    def start(self) -> int:
        """The step training begins at."""
        return int(self.state["step"]) if self.state else 0

    def before_run(self, runner: Any) -> None:
        torch.manual_seed(number(self.seed, "head"))  # the head is initialised next

    def before_train(self, runner: Any) -> None:
        if self.state:
            restore(self.state, runner.model.decode_head, runner.optim_wrapper.optimizer, self.curve)
            runner.train_loop._iter = self.start
            self.bar.advance(self.start)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        for group in runner.optim_wrapper.optimizer.param_groups:
            group["lr"] = self.protocol.learning_rate * factor(self.protocol, batch_idx)
        torch.manual_seed(number(self.seed, "dropout", batch_idx))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        step, loss = batch_idx + 1, float(outputs["loss"])
        if not math.isfinite(loss):
            raise BenchError(f"the loss of the linear probe is {loss} at step {step}. Lower learning_rate with --set")
        rate = runner.optim_wrapper.optimizer.param_groups[0]["lr"]
        self.curve.add(step, rate, loss, float(outputs["decode.acc_seg"]))
        self.bar.advance()
        self.bar.note(f"loss {loss:.3f}")
        if step == self.protocol.steps or self.checkpoint.due():
            self.checkpoint.save(step, runner.model.decode_head, runner.optim_wrapper.optimizer, self.curve)


def train(context: TaskContext, model: Segmentor, protocol: MmProbe) -> Curve:
    """Trains the head in place to the last step, from the job's checkpoint where there is one."""
    curve = Curve(max(1, protocol.steps // POINTS))
    bar = context.progress("training the linear probe", protocol.steps)
    hook = ProbeHook(protocol, context.seed, curve, Checkpoint(context.scratch / "probe.safetensors"), bar)
    loader = EncodedCrops(context, model, protocol, hook.start)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=protocol.learning_rate, betas=(protocol.betas[0], protocol.betas[1]), weight_decay=protocol.weight_decay,
    )  # fmt: skip
    clip = {"max_norm": protocol.clip_norm} if protocol.clip_norm else None
    devices = [torch.device(context.device)] if context.device.startswith("cuda") else []
    with torch.random.fork_rng(devices), seeded(context.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = _runner(context, model, hook, loader, protocol.steps, OptimWrapper(optimizer, clip_grad=clip))
        try:
            runner.train()
        finally:
            _close(runner.logger)
    return curve


def _runner(
    context: TaskContext, model: nn.Module, hook: ProbeHook, loader: Any, steps: int, optimizer: OptimWrapper
) -> Runner:
    """A Runner whose files stay in the job's scratch folder and whose log stays off the terminal."""
    name = f"densebench-{uuid.uuid4().hex}"  # mmengine keeps loggers and scopes by name
    kind = type("ProbeRunner", (ProbeRunner,), {"device": context.device})
    return kind(
        model,
        str(Path(context.scratch) / "mmengine"),
        train_dataloader=loader,
        train_cfg={"type": ProbeLoop, "max_iters": steps},
        optim_wrapper=optimizer,
        default_hooks=dict.fromkeys(UNUSED_HOOKS),
        custom_hooks=[hook],
        env_cfg={"mp_cfg": {"mp_start_method": multiprocessing.get_start_method(), "opencv_num_threads": 0}},
        log_level="CRITICAL",
        visualizer=Visualizer(name),
        randomness={"seed": number(context.seed, "runner")},
        experiment_name=name,
        default_scope=None,
    )


def _close(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
