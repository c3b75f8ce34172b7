"""Where the self-supervised targets come from: a moving average, or a frozen model (distillation)."""

from __future__ import annotations

import torch
from torch import nn

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.centering import Targets
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.ema import averaged_copy, momentum_at, update_average
from adapters.tipsv2.recipe.model import Pretrainer, StudentOutput, vision_tokens
from adapters.tipsv2.recipe.schedule import teacher_temperature
from benchmark.errors import UsageError


class Teacher(nn.Module):
    """Targets for the DINO and patch losses, from the unmasked global view; no gradient ever enters.

    Head-only EMA (TIPSv2): the encoder is the student's own, its features detached; `heads` are averages.
    Full EMA: `encoder` is an average too. Distillation: `encoder` is the frozen teacher, given as `frozen`.
    """

    def __init__(self, config: RecipeConfig, student: Pretrainer, frozen: Pretrainer | None = None) -> None:
        super().__init__()
        self.config = config
        self.distils = frozen is not None
        self.encoder: nn.Module | None = None
        if frozen is not None:
            self.encoder = averaged_copy(frozen.encoder)
        elif config.ema.scope == "full" and len(student.heads):
            self.encoder = averaged_copy(student.encoder)
        own_heads = frozen is not None and config.teacher.heads == "frozen"
        if own_heads and set(frozen.heads) < set(student.heads):  # type: ignore[union-attr]
            raise UsageError(
                f"{config.teacher.path}: the teacher has no projector for {', '.join(set(student.heads) - set(frozen.heads))}"  # type: ignore[union-attr]
                ' (heads.safetensors). Set teacher.heads = "ema" or distil from a checkpoint that has one'
            )
        self.heads = averaged_copy(frozen.heads if own_heads else student.heads)  # type: ignore[union-attr]
        self.frozen_heads = own_heads
        self.targets = nn.ModuleDict({k: Targets(config.head) for k in student.heads})

    @torch.no_grad()
    def forward(self, output: StudentOutput, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """{"cls": [b, P], "patch": [b, N, P]} for the losses that run."""
        if not self.targets:
            return {}
        cls, patches = output.clean_cls, output.clean_patches
        if self.encoder is not None:
            cls, patches = vision_tokens(self.encoder, batch.images[batch.ssl_rows])  # type: ignore[arg-type]
        temperature = teacher_temperature(step, self.config.train.steps, self.config.head)
        features = {"cls": cls[:, self.config.loss.dino_cls], "patch": patches}
        return {k: target(self.heads[k](features[k]), temperature) for k, target in self.targets.items()}  # type: ignore[index]

    def update(self, student: Pretrainer, step: int) -> None:
        """Once after each optimiser step: centres, then averages."""
        for target in self.targets.values():
            target.update()  # type: ignore[operator]
        ema = self.config.ema
        momentum = momentum_at(step, self.config.train.steps, ema.momentum, ema.final_momentum)
        if not self.frozen_heads:
            update_average(self.heads, student.heads, momentum)
        if self.encoder is not None and not self.distils:
            update_average(self.encoder, student.encoder, momentum)
