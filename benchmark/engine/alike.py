"""What all workers of a run must have alike: packages, our own files, the pictures that they read."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmark.contracts import ImageSet
from benchmark.contracts.images import ImageSubset
from benchmark.engine.environment import PACKAGES, package_version
from benchmark.engine.jobs import Job

PROBED = 3  # pictures of each set that a worker must read as the process that asked does


def base_of(images: ImageSet) -> ImageSet:
    """The set that the pictures are taken from."""
    while isinstance(images, ImageSubset):
        images = images.base
    return images


def sets_of(jobs: Sequence[Job]) -> list[ImageSet]:
    """The picture sets of all jobs, each once."""
    found = [images for job in jobs for data in job.data.values() for images in data.pictures().values()]
    return list({images.digest: images for images in found}.values())


def rendered_sets(jobs: Sequence[Job]) -> dict[str, ImageSet]:
    """By digest: the sets of all jobs that are made before they are read."""
    bases = [base_of(images) for images in sets_of(jobs)]
    return {images.digest: images for images in bases if type(images).prepare is not ImageSet.prepare}


def probes(jobs: Sequence[Job]) -> dict[str, str]:
    """By digest: what `probe` says of the sets of all jobs that are read from a disk and can be."""
    rendered = rendered_sets(jobs)
    read = [images for images in sets_of(jobs) if base_of(images).digest not in rendered]
    return {images.digest: found for images in read if (found := probe(images))}


def probe(images: ImageSet) -> str | None:
    """The digest of a few pictures; None where one cannot be read."""
    seen = hashlib.sha256()
    try:
        for index in sorted({round(i * (len(images) - 1) / (PROBED - 1)) for i in range(PROBED)}):
            picture = images.picture(index)
            seen.update(str(picture.shape).encode() + picture.tobytes())
    except Exception:
        return None
    return seen.hexdigest()


@cache
def versions() -> dict[str, str | None]:
    """What decides numbers beside the model: packages by their versions, our own by the digest of its files."""
    own = hashlib.sha256()
    for package in ("benchmark", "adapters", "tasks"):
        spec = importlib.util.find_spec(package)
        root = Path(spec.origin).parent if spec and spec.origin else None
        for file in sorted(root.rglob("*")) if root else ():
            if file.suffix in (".py", ".toml", ".txt"):
                own.update(f"{package}/{file.relative_to(root or file)}".encode() + file.read_bytes())
    python = ".".join(map(str, sys.version_info[:2]))
    return {"python": python, **{name: package_version(name) for name in PACKAGES}, "densebench": own.hexdigest()[:12]}
