"""Builds the wheel, holds it against what git tracks, and tries it outside the checkout: python tests/wheel.py

The wheel is unpacked into a folder of its own; libraries are those of the Python that runs this. `--installed` tries
what is installed instead, whatever installed it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmark", "adapters", "tasks")
TABLES = ("published.csv", "published_models.csv", "measured_elsewhere.csv")
COMMANDS = (
    "--version",
    "ls models",
    "show linear_segmentation --protocol paper",
    "compare tipsv2-mini clip-mini",
    "reproduce tipsv2",
    "run --model pixels --task classification/scenes --limit 24",
    "leaderboard --out page",
)


def built(folder: Path) -> Path:
    """The wheel of this checkout."""
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*words, str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def missing(wheel: Path) -> list[str]:
    """What git tracks in the packages, and of the shipped rows, and the wheel lacks."""
    words = ["git", "-C", str(ROOT), "ls-files", *PACKAGES, "results"]
    tracked = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    wanted = {f for f in tracked if f.split("/")[0] in PACKAGES}
    rows = {f.removeprefix("results/") for f in tracked if f.startswith("results/")}
    wanted |= {f"benchmark/shipped/{f}" for f in rows if f.startswith("reference/") or f in TABLES}
    with zipfile.ZipFile(wheel) as there:
        return sorted(wanted - set(there.namelist()))


def tried(place: Path, site: Path | None) -> None:
    """Runs COMMANDS in the empty folder `place`, with the packages of `site`."""
    settings = {**os.environ, "BENCH_CACHE": os.environ.get("BENCH_TEST_CACHE", str(place / "cache"))}
    settings |= {"PYTHONPATH": str(site)} if site else {}
    where = [sys.executable, "-P", "-c", "import benchmark; print(benchmark.__file__)"]
    found = subprocess.run(where, cwd=place, env=settings, check=True, capture_output=True, text=True).stdout.strip()
    if Path(found).is_relative_to(ROOT):
        sys.exit(f"{found}: this is the checkout")
    for words in COMMANDS:
        command = [sys.executable, "-P", "-m", "benchmark.cli", *words.split()]
        done = subprocess.run(command, cwd=place, env=settings, capture_output=True, text=True)
        if done.returncode or not done.stdout.strip():
            sys.exit(f"bench {words}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    if not (place / "page" / "leaderboard.html").is_file():
        sys.exit("bench leaderboard: no page")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        site = None
        if "--installed" not in sys.argv:
            wheel = built(Path(folder))
            if lost := missing(wheel):
                sys.exit(f"{wheel.name} lacks {len(lost)} files: {', '.join(lost[:10])}")
            site = Path(folder, "site")
            zipfile.ZipFile(wheel).extractall(site)
        (Path(folder) / "empty").mkdir()
        tried(Path(folder) / "empty", site)
    print("the wheel holds all, and works outside the checkout")
