"""What is read from a folder beside the weight file that was named: adapters, identities and watch agree on it."""

from __future__ import annotations

from pathlib import Path

TEXT_HALF = "_text"  # of an npz pair: it belongs to the vision file


# Files beside weights that decide what comes out: sizes and activation, pictures, words.
BESIDE = (
    "config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "tokenizer.model",
)  # fmt: skip


def read_with(weights: Path) -> list[Path]:
    """A weight file and what is read with it from its folder: the other half of an npz pair, and BESIDE."""
    stem = weights.stem.removesuffix("_vision").removesuffix(TEXT_HALF)
    halves = (f"{stem}_vision.npz", f"{stem}{TEXT_HALF}.npz") if weights.suffix == ".npz" else ()
    found = {weights, *(weights.with_name(name) for name in (*halves, *BESIDE))}
    return sorted(path for path in found if path.is_file())
