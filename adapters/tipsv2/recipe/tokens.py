"""The tokeniser of a run: the given file, that of `init_from`, or one trained on its captions, kept with the run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path

import numpy as np

from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.parallel import Place
from adapters.tipsv2.recipe.samples import Source
from adapters.tipsv2.recipe.text import Tokenizer, train_tokenizer
from benchmark.errors import DataError

SAMPLES_READ = 4000


def run_tokenizer(config: RecipeConfig, source: Source, out: Path, place: Place) -> tuple[Tokenizer, RecipeConfig]:
    """(tokeniser, config with the vocabulary size that it really has)."""
    out.mkdir(parents=True, exist_ok=True)
    inherited = Path(config.init_from) / "tokenizer.model"  # a later stage reads text as its weights learned to
    given = config.model.tokenizer or (str(inherited) if config.init_from and inherited.is_file() else "")
    path = Path(given) if given else out / "tokenizer.model"
    if not given:
        if place.first and not path.is_file():
            _write_trained(config, source, path)
        if place.world > 1:
            import torch.distributed as dist

            dist.barrier()
    tokenizer = Tokenizer.read(path, config.model.max_text)
    model = dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size)
    return tokenizer, dataclasses.replace(config, model=model)


def _write_trained(config: RecipeConfig, source: Source, path: Path) -> None:
    chosen = np.random.default_rng((config.train.seed, 3)).permutation(len(source))[:SAMPLES_READ]
    texts: list[str] = []
    for index in sorted(chosen):
        with contextlib.suppress(DataError):  # the limit on bad samples is kept by the training loop
            sample = source.load(int(index))
            texts += [sample.alt, *sample.synthetic]
    if not texts:
        raise DataError(f"data.path = {config.data.path!r}: none of {len(chosen)} samples can be read")
    staging = path.with_name(path.name + ".part")
    staging.write_bytes(train_tokenizer(texts, config.model.vocab_size, config.model.max_text).model)
    os.replace(staging, path)
