"""The bounds of pyproject.toml at both ends: the lowest and the newest releases resolve, install and pass SMOKE.

    python tests/bounds.py lowest             # also: newest
    python tests/bounds.py lowest --resolve   # only whether it resolves, and to the bounds as they are written
    python tests/bounds.py lowest --hold torch==2.13.0

It needs `uv` (`pip install uv`). `--cpu` takes PyTorch without CUDA, `--hold` keeps a package at a release of one's own
instead; what the bounds promise is then not asked. The environment is made in a temporary folder, or in the one of
`--venv`, which is kept.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESOLUTION = {"lowest": "lowest-direct", "newest": "highest"}
TOOLS = ("pytest", "hypothesis", "protobuf", "statsmodels", "torchmetrics")  # of the tests: as new as the rest allows
SMOKE = (  # a part of every layer: statistics, heads, files, pictures, readers, both backends, mmsegmentation
    "test_boundaries.py", "test_stats.py", "test_metrics_segmentation.py", "test_metrics_geometry.py",
    "test_metrics_retrieval.py", "test_heads_knn.py", "test_results.py", "test_summary.py", "test_frozen.py",
    "test_protocol.py", "test_images.py", "test_preprocessing.py", "test_datasets_readers.py", "test_mm_datasets.py",
    "test_tips_encoders.py", "test_features_store.py", "test_boundaries_of_data.py", "test_datasets_geometry.py",
)  # fmt: skip


def resolve(end: str, hold: list[str], cpu: bool, out: Path) -> dict[str, str]:
    """Package -> release of the dependencies at that end, also written to `out` as requirements."""
    held = out.with_name("hold.txt")
    held.write_text("\n".join(hold) + "\n", encoding="utf-8")
    words = ["pip", "compile", "pyproject.toml", "--resolution", RESOLUTION[end], "--quiet", "--output-file", str(out)]
    words += ["--python", sys.executable, "--override", str(held), *(["--torch-backend", "cpu"] if cpu else [])]
    subprocess.run(["uv", *words], cwd=ROOT, check=True)
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", out.read_text(encoding="utf-8"), re.M))


def untrue(found: dict[str, str]) -> list[str]:
    """One line for each lower bound that the other dependencies never allow: it promises what nobody can install."""
    lines = []
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]:
        name, low = re.match(r"([A-Za-z0-9._-]+)(?:[>=]=([0-9.]+))?", text).groups()
        release = found[name.lower()]
        if low and numbers(release) != numbers(low):
            lines.append(f"{text}: the lowest that fits the others is {release}")
    return lines


def numbers(release: str) -> tuple[int, ...]:
    """2.0.0 and 2.0 are one release; +cpu and .post1 are left out."""
    whole = [int(part) for part in re.match(r"[0-9.]*[0-9]", release).group().split(".")]
    while whole and not whole[-1]:
        whole.pop()
    return tuple(whole)


def main() -> int:
    """0 where that end resolves, to the bounds as they are written, and passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end", choices=RESOLUTION)
    parser.add_argument("--resolve", action="store_true", help="install and test nothing")
    parser.add_argument("--hold", action="append", default=[], help="NAME==RELEASE instead of the one at that end")
    parser.add_argument("--cpu", action="store_true", help="PyTorch's own index for builds without CUDA")
    parser.add_argument("--venv", type=Path, help="where to make the environment")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "requirements.txt"
        found = resolve(words.end, words.hold, words.cpu, out)
        lines = untrue(found) if words.end == "lowest" and not words.hold else []
        print(f"{words.end}: {len(found)} packages", *lines, sep="\n")
        if lines or words.resolve:
            return int(bool(lines))
        place = words.venv or Path(folder) / "venv"
        python = place / "bin" / "python"
        backend = ["--torch-backend", "cpu"] if words.cpu else []
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
        install = ["uv", "pip", "install", "--quiet", "--python", str(python), *backend]
        subprocess.run([*install, "-r", str(out), "-c", str(out), *TOOLS], check=True)
        subprocess.run([*install, "--no-deps", "-e", "."], cwd=ROOT, check=True)
        files = [f"tests/{name}" for name in SMOKE]
        return subprocess.run([str(python), "-m", "pytest", "-q", *files], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
