"""What the encoder under a trained head is shown, as `bench plan` counts it: nothing of it is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmark.images.windows import Size
from tasks.training.augment import border_cut, middle_square
from tasks.training.fields import TrainedHead


def crop_forwards(p: TrainedHead, shapes: Sequence[Size]) -> Counter[Size]:
    """(height, width) in pixels -> forwards of training crops of pictures like the first of `shapes`; none where the
    head is loaded."""
    return Counter() if p.head_weights else Counter({_trained(p, shapes[0]): p.steps * p.batch_size})


def test_forwards(p: TrainedHead, shapes: Sequence[Size]) -> Counter[Size]:
    """(height, width) in pixels -> forwards of test pictures of these shapes, twice where the mirrored one counts."""
    return Counter({_tested(p, shape): times * (2 if p.flip_test else 1) for shape, times in Counter(shapes).items()})


def _trained(p: TrainedHead, shape: Size) -> Size:
    picture = np.broadcast_to(np.uint8(0), shape)
    picture = border_cut(picture) if p.border_crop == "nyu" else picture
    picture = middle_square(picture) if p.train_square else picture
    height, width = (p.resize, p.resize) if p.resize else picture.shape
    return (min(height, p.crop[0]), min(width, p.crop[1])) if p.crop else (height, width)


def _tested(p: TrainedHead, shape: Size) -> Size:
    if p.resize:
        return p.resize, p.resize
    return (min(shape), min(shape)) if p.test_square else shape
