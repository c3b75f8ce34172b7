"""Random patch masking: exactly round(ratio · N) of N patches (TIPSv2: 75 %)."""

from __future__ import annotations

import numpy as np


def random_mask(patches: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """[patches] bool, True where the student does not see the patch."""
    mask = np.zeros(patches, dtype=bool)
    mask[rng.permutation(patches)[: round(ratio * patches)]] = True
    return mask
