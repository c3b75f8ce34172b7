"""The planner: many tasks' needs become the fewest encoder passes, one per (pictures, view)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.contracts import EncoderCard, ImageSet, ImageTransform, Need, Tap, identity
from benchmark.errors import BenchError
from benchmark.features.store import FeatureStore, StoredArray, shard_items
from benchmark.images.views import ResolvedView, resolve_view
from benchmark.system.claims import Claim
from benchmark.system.digest import plain

DENSE = ("patches", "text_patches")


@dataclass
class Pass:
    """One forward of every picture of a set under one view, and all the taps taken on the way."""

    images: ImageSet
    view: ResolvedView
    taps: dict[Tap, StoredArray] = field(default_factory=dict)

    @property
    def block(self) -> int:
        """Pictures that are encoded as one piece: a whole number of shards of every tap."""
        return shard_items(len(self.images))

    def block_range(self, block: int) -> range:
        """The pictures of `block`."""
        return range(block * self.block, min((block + 1) * self.block, len(self.images)))

    @property
    def pixels(self) -> str:
        """The same for passes, of any encoder, that read the same pixels."""
        return f"{self.images.digest} {self.view.pixels()}"

    def missing(self, among: Collection[int] | None = None) -> list[int]:
        """Blocks (`among` those, where given) of which at least one tap lacks a shard, in order."""
        return sorted({block for array in self.taps.values() for block in self.blocks_without(array, among)})

    def blocks_without(self, array: StoredArray, among: Collection[int] | None = None) -> set[int]:
        """Blocks of which `array`, one of its taps, lacks a shard."""
        return {s * array.size // self.block for s in self.shards_without(array, among)}

    def shards_without(self, array: StoredArray, among: Collection[int] | None = None) -> list[int]:
        """The shards that `array`, one of its taps, lacks (of these blocks, where given)."""
        if among is None:
            return array.missing()
        each = self.block // array.size
        return array.missing(s for b in among for s in range(b * each, min((b + 1) * each, array.num_shards)))

    def claims(self, cache: Path) -> list[Claim]:
        """What one run at a time holds that encodes what is missing; none where nothing is."""
        return [Claim(cache, f"features-{a.folder.name}") for a in self.taps.values() if a.missing()]


class Planner:
    """Turns needs into passes for one encoder. Needs that ask for the same thing get the same stored array."""

    def __init__(self, card: EncoderCard, transform: ImageTransform, store: FeatureStore) -> None:
        self.card, self.transform, self.store = card, transform, store
        self.passes: dict[tuple[str, str], Pass] = {}

    def add(self, needs: Iterable[Need]) -> None:
        """Joins `needs` to the passes. Raises BenchError for a dense tap of pictures whose grids differ in size."""
        for need in needs:
            view = resolve_view(need.view, self.transform, self.card, need.images)
            ragged = view.transform is None and need.images.uniform_shape is None
            if ragged and need.tap.name in DENSE:
                raise BenchError(
                    f"{need.tap.name} cannot be stored for a view that keeps each picture's shape; use view = square"
                )
            key = (need.images.digest, view.fingerprint())
            found = self.passes.setdefault(key, Pass(need.images, view))
            if need.tap not in found.taps:
                found.taps[need.tap] = self._array(need.images, view, need.tap)

    def of(self, need: Need) -> Pass:
        """The pass that serves `need`."""
        view = resolve_view(need.view, self.transform, self.card, need.images)
        return self.passes[(need.images.digest, view.fingerprint())]

    def array(self, need: Need) -> StoredArray:
        """Where the features of `need` are or will be."""
        return self.of(need).taps[need.tap]

    def _array(self, images: ImageSet, view: ResolvedView, tap: Tap) -> StoredArray:
        key = {**identity(self.card), "view": view.fingerprint(), "tap": plain(tap), "images": images.digest}
        codec = None if tap.name in (*DENSE, "pixels") else "float32"  # vectors are small: keep them exact
        shape = images.uniform_shape or (0, 0)
        return self.store.array(key, len(images), codec, 4 * item_values(tap, view, self.card, shape))


def input_size(view: ResolvedView, card: EncoderCard, shape: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels of what the encoder sees of a picture of this `shape`, padded to whole patches."""
    if view.transform is None or (view.transform.resize == "none" and not view.transform.crop):
        height, width = shape
    else:
        height = width = view.transform.crop or view.transform.size
    return -(-height // card.patch_size) * card.patch_size, -(-width // card.patch_size) * card.patch_size


def item_values(tap: Tap, view: ResolvedView, card: EncoderCard, shape: tuple[int, int]) -> int:
    """Values that `tap` keeps of one picture of this `shape`, (height, width) in pixels."""
    wide = card.text_dim if tap.name == "text_patches" else card.embed_dim
    if tap.name in DENSE:
        height, width = input_size(view, card, shape)
        return (height // card.patch_size) * (width // card.patch_size) * wide
    return wide * {"pixels": tap.count, "cls": card.num_cls}.get(tap.name, 1)
