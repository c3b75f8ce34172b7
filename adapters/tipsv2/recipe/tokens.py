"""The tokeniser of a run: the given file, that of `init_from`, or one trained on its captions, kept with the run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from adapters.tipsv2.recipe import captions
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.order import shuffled
from adapters.tipsv2.recipe.parallel import Place
from adapters.tipsv2.recipe.samples import Source
from adapters.tipsv2.recipe.text import Tokenizer, train_tokenizer
from adapters.tipsv2.recipe.weights import read_tokenizer
from benchmark.errors import DataError, UsageError
from benchmark.system import sealed
from benchmark.system.plurals import number_of

SAMPLES_READ = 4000
DIGEST = ".digest.json"


def run_tokenizer(config: RecipeConfig, source: Source, out: Path, place: Place) -> tuple[Tokenizer, RecipeConfig]:
    """(tokeniser, config with the vocabulary size that it really has)."""
    out.mkdir(parents=True, exist_ok=True)
    path = _given(config) or out / "tokenizer.model"
    if path.parent == out and not config.model.tokenizer:
        if place.first and not _whole(path):
            _write_trained(config, source, path)
        if place.world > 1:
            import torch.distributed as dist

            dist.barrier()
    tokenizer = Tokenizer.read(path, config.model.max_text)
    if config.model.frozen:
        return tokenizer, config  # its text tower reads nothing
    model = dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size)
    return tokenizer, dataclasses.replace(config, model=model)


def _given(config: RecipeConfig) -> Path | None:
    """The file that is named, or that of the weights the run starts from: a later stage reads text as its weights
    learned to. Raises WeightsError where these have none, UsageError where another one is named."""
    named = Path(config.model.tokenizer) if config.model.tokenizer else None
    if config.model.frozen or not config.init_from:
        return named
    if named is None:
        return read_tokenizer(config.init_from)
    theirs = Path(config.init_from) / "tokenizer.model"
    if named.is_file() and theirs.is_file() and named.read_bytes() != theirs.read_bytes():
        raise UsageError(
            f"model.tokenizer = {str(named)!r} is not that of init_from ({theirs}): its text weights would read other"
            ' ids. Set model.tokenizer = ""'
        )
    return named


def _write_trained(config: RecipeConfig, source: Source, path: Path) -> None:
    order = shuffled(len(source), (config.train.seed, 3))
    chosen = [order(i) for i in range(min(SAMPLES_READ, len(source)))]
    texts: list[str] = []
    alts = 0
    bad: list[str] = []
    for index in sorted(chosen):
        try:
            sample = source.load(index)
        except DataError as error:  # the limit on bad samples is kept by the training loop
            bad.append(str(error))
            continue
        alts += bool(sample.alt.strip())
        for kind in (sample.alt, *sample.synthetic):
            texts += captions.texts(kind)
    place, read = f"data.path = {config.data.path!r}", number_of(len(chosen), "sample")
    if len(bad) == len(chosen):
        raise DataError(f"{place}: none of {read} can be read; the first: {bad[0]}")
    if not texts:
        names = f"data.alt = {config.data.alt!r}, data.synthetic = {list(config.data.synthetic)}"
        raise DataError(f"{place}: none of {read} has a caption ({names}). Name the columns that hold captions")
    if not alts and config.loss.captions != "synthetic" and not config.model.frozen:
        raise DataError(  # the first step would say so too, but the run would keep a tokeniser without their words
            f"{place}: none of {read} has an alt text (data.alt = {config.data.alt!r}). Name its column, or set"
            ' loss.captions = "synthetic"'
        )
    staging = path.with_name(path.name + ".part")
    staging.write_bytes(train_tokenizer(texts, config.model.vocab_size, config.model.max_text).model)
    os.replace(staging, path)
    _seal(path)


def _whole(path: Path) -> bool:
    """Whether the run's own tokeniser is there and is the one that was trained."""
    if not path.is_file():
        return False
    try:
        sealed.check_files(path.parent, sealed.read_json(path.with_suffix(DIGEST))["files"])
    except FileNotFoundError:  # of before there was one, or a kill between the two
        _seal(path)
    except sealed.Damaged as e:
        sealed.remake(path, e, "it is trained again")
        return False
    return True


def _seal(path: Path) -> None:
    sealed.write_json(path.with_suffix(DIGEST), {"files": sealed.digests(path.parent, [path.name])})
