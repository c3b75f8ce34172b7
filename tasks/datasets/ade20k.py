"""ADE20K in the scene-parsing benchmark's layout (`ADEChallengeData2016`), its zip, or the hub's parquet.

Label 0 means "other objects" and is ignored; 1 … 150 become 0 … 149. `ade150` is the validation half, for
zero-shot segmentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError
from tasks.datasets.arrays import index_image
from tasks.datasets.blobs import Blobs
from tasks.datasets.catalog import expected
from tasks.datasets.kinds import Pictures, Relabel, SegmentationSet
from tasks.datasets.parts import check_parts
from tasks.datasets.places import Store, bases, checked, find, known_options, note_size, split_error
from tasks.datasets.prompts import prompt_list

FOLDERS = {"train": "training", "test": "validation"}
PARQUET = {"train": ("train", "training"), "test": ("validation", "val")}
CONFIGS = ("scene_parsing",)  # of zhoubolei/scene_parse_150; its instance_segmentation has the same columns
ALSO = ("ade20k", "ade", "scene_parse_150")


@dataclass(frozen=True)
class Ade20k(Dataset):
    """The 150-class benchmark."""

    info: DatasetInfo
    root: Path | None

    def data(self, kind: str, split: str) -> SegmentationSet:
        if kind != "segmentation" or split not in self.info.splits:
            raise split_error(self.info, kind, split)
        try:
            store = find(
                self.info,
                self.root,
                f"images/{FOLDERS[split]}",
                ("ADEChallengeData2016",),
                ("ADEChallengeData2016.zip", "ADEChallengeData2016.tar"),
                also=ALSO,
            )
        except DataError:
            found, names = self._from_hub(split), []
            if found is None:
                raise
        else:
            found = self._from_files(store, split)
            names = [found.images.image_id(i) for i in range(len(found.images))]
        note_size(self.info, split, len(found.images), expected(self.info.name, split), names)
        return found

    def _from_files(self, store: Store, split: str) -> SegmentationSet:
        # A picture or its mask alone is half a pair: whichever is lacking is looked for by name.
        stems = {n.removeprefix("images/")[: -len(".jpg")] for n in store.names(f"images/{FOLDERS[split]}", (".jpg",))}
        annotated = store.names(f"annotations/{FOLDERS[split]}", (".png",))
        stems |= {n.removeprefix("annotations/")[: -len(".png")] for n in annotated}
        pictures, masks = [f"images/{s}.jpg" for s in sorted(stems)], [f"annotations/{s}.png" for s in sorted(stems)]
        return self._set(Pictures(checked(self.info, store, pictures)), checked(self.info, store, masks))

    def _from_hub(self, split: str) -> SegmentationSet | None:
        from tasks.datasets.parquet import Table, find_files

        files = find_files(bases(self.info, self.root, ALSO), PARQUET[split], CONFIGS)
        if not files:
            return None
        check_parts(self.info, split, files)
        table = Table(files)
        return self._set(Pictures(table.blobs(table.first_of("image"))), table.blobs(table.first_of("annotation")))

    def _set(self, images: Pictures, masks: Blobs) -> SegmentationSet:
        return SegmentationSet(images, masks, prompt_list("ade150_classes"), Relabel.reduce_zero(150), index_image)


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> Ade20k:
    """ADE20K under `root`; no options."""
    known_options(info, options)
    return Ade20k(info, root)
