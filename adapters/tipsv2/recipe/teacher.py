"""Where the self-supervised targets come from: a moving average, or a frozen model (distillation)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.centering import Targets
from adapters.tipsv2.recipe.chunked import Assigned
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.cosines import Cosines
from adapters.tipsv2.recipe.ema import averaged_copy, momentum_at, update_average
from adapters.tipsv2.recipe.model import Pretrainer, StudentOutput, vision_tokens
from adapters.tipsv2.recipe.schedule import teacher_temperature


class Teacher(nn.Module):
    """Targets for the DINO and patch losses, from the unmasked global view; no gradient ever enters.

    Head-only EMA (TIPSv2): the encoder is the student's own, its features detached; `heads` are averages.
    Full EMA: `vision` is an average too. Distillation: `vision` is the frozen teacher's, given as `frozen`.
    """

    def __init__(self, config: RecipeConfig, student: Pretrainer, frozen: Pretrainer | None = None) -> None:
        super().__init__()
        self.config = config
        self.distils = frozen is not None
        self.vision: nn.Module | None = None
        if frozen is not None:
            self.vision = averaged_copy(frozen.encoder.vision_model)
        elif config.ema.scope == "full" and len(student.heads):
            self.vision = averaged_copy(student.encoder.vision_model)
        heads = student.heads
        self.frozen_heads = frozen is not None and config.teacher.heads != "ema"
        if frozen is not None and self.frozen_heads:
            heads = frozen.heads
        self.heads = averaged_copy(heads)
        self.targets = nn.ModuleDict({k: Targets(config.head) for k in student.heads})

    @property
    def frozen(self) -> tuple[str, ...]:
        """How the names of what never changes begin: it is read again from where it came."""
        if not self.distils:
            return ()
        return ("vision.", "heads.") if self.frozen_heads else ("vision.",)

    @torch.no_grad()
    def forward(self, output: StudentOutput, batch: Batch, step: int) -> dict[str, torch.Tensor | Assigned]:
        """{"cls": [b, P], "patch": [b, N, P]} for the losses that run; the latter in factors where the student's is."""
        if not self.targets:
            return {}
        cls, patches = output.clean_cls, output.clean_patches
        if self.vision is not None:
            cls, patches = vision_tokens(self.vision, batch.images[batch.ssl_rows])
        temperature = teacher_temperature(step, self.config.train.steps, self.config.head)
        features = {"cls": cls[:, self.config.loss.dino_cls], "patch": patches}
        found: dict[str, torch.Tensor | Assigned] = {}
        target: Any
        for name, target in self.targets.items():
            head: Any = self.heads.get_submodule(name)
            if name == "patch" and isinstance(output.patch_logits, Cosines):
                found[name] = target.assigned(head.factors(features[name]), temperature)
            else:
                found[name] = target(head(features[name]), temperature)
        return found

    def update(self, student: Pretrainer, step: int) -> None:
        """Once after each optimiser step: centres, then averages."""
        for target in self.targets.children():
            if isinstance(target, Targets):
                target.update()
        ema = self.config.ema
        momentum = momentum_at(step, self.config.train.steps, ema.momentum, ema.final_momentum)
        if not self.frozen_heads:
            update_average(self.heads, student.heads, momentum)
        if self.vision is not None and not self.distils:
            update_average(self.vision, student.encoder.vision_model, momentum)
