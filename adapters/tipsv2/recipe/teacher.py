"""Where the self-supervised targets come from: a moving average, or a frozen model (distillation)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.centering import Centered, Target, move_centers, sinkhorn
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.ema import averaged_copy, momentum_at, update_average
from adapters.tipsv2.recipe.model import Clean, Logits, Pretrainer, by_rows, vision_tokens
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
        self.targets = nn.ModuleDict({k: Centered(config.head) for k in student.heads})

    @property
    def frozen(self) -> tuple[str, ...]:
        """How the names of what never changes begin: it is read again from where it came."""
        if not self.distils:
            return ()
        return ("vision.", "heads.") if self.frozen_heads else ("vision.",)

    @torch.no_grad()
    def forward(self, clean: Clean, batch: Batch, step: int) -> dict[str, Target]:
        """{"cls": [b, P], "patch": [b, N, P]} for the losses that run; the latter in factors where the student's is."""
        if not self.targets:
            return {}
        cls, patches = clean.cls, clean.patches
        if self.vision is not None:
            cls, patches = vision_tokens(self.vision, batch.images[batch.ssl_rows])
        temperature = teacher_temperature(step, self.config.train.steps, self.config.head)
        features = {"cls": cls[:, self.config.loss.dino_cls], "patch": patches}
        logits: dict[str, Logits] = {}
        for name in self.targets:
            head: Any = self.heads.get_submodule(name)
            factors = name == "patch" and by_rows(self.config, patches)
            logits[name] = head.factors(features[name]) if factors else head(features[name])
        if self.config.head.balance == "sinkhorn":
            whole = [each for each in logits.values() if isinstance(each, torch.Tensor)]  # in factors only if centred
            return dict(zip(logits, sinkhorn(whole, temperature, self.config.head.sinkhorn_iterations), strict=True))
        return {name: self.targets[name](each, temperature) for name, each in logits.items()}

    def update(self, student: Pretrainer, step: int) -> None:
        """Once after each optimiser step: centres, then averages."""
        move_centers([each for each in self.targets.children() if isinstance(each, Centered)])
        ema = self.config.ema
        momentum = momentum_at(step, self.config.train.steps, ema.momentum, ema.final_momentum)
        if not self.frozen_heads:
            update_average(self.heads, student.heads, momentum)
        if self.vision is not None and not self.distils:
            update_average(self.vision, student.encoder.vision_model, momentum)
