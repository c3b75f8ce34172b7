"""Mutation testing: one operator or number of a module changed at a time; tests that all pass have let it through.

    python tests/mutants.py --sample 20 --seed 1 benchmark/metrics     # of each module below it, 20 mutants
    python tests/mutants.py                                            # all of them: hours, as the nightly workflow

Cosmic Ray (`pip install cosmic-ray`) makes the mutants; what stands in annotations and docstrings is left out. Each
runs in a process forked from this one, which has the large libraries loaded, on a copy of the tree: `mutants.toml` says
which quick tests judge a module, which wider ones judge what those let through, and which mutants are equivalent. The
exit code is 1 where fewer than TARGET of the others died.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import itertools
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8"))
TARGET = 0.9
# Times the processor seconds that the tests take on the code as it is: a mutant that takes longer counts as noticed, as
# does one that takes WAIT times as many by the clock; but never one that takes less than LEAST.
PATIENCE, WAIT, LEAST = 3, 20, 10.0
TREE = ("benchmark", "adapters", "tasks", "tests", "results", "docs", "examples", "pyproject.toml", "README.md")
LOADED = (
    "torch", "numpy", "scipy.stats", "sklearn.linear_model", "pandas", "pyarrow.parquet", "hypothesis", "pytest",
    "rich.table", "typer", "PIL.Image", "statsmodels.stats.contingency_tables", "transformers", "matplotlib.figure",
    "mmengine",
)  # fmt: skip


def mutants(source: str, order: random.Random) -> Iterator[tuple[str, str]]:
    """(operator, changed source) of every mutant whose meaning to Python differs from all before, in a random order."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    seen, nodes, places = {meaning(source)}, list(ast_nodes(get_ast(source))), []
    for name in sorted(operator_names()):
        kind = get_operator(name)
        if not kind.arguments():
            count = sum(1 for node in nodes for _ in kind().mutation_positions(node))
            places += [(name, occurrence) for occurrence in range(count)]
    order.shuffle(places)
    for name, occurrence in places:
        changed = mutate_code(source, get_operator(name)(), occurrence)
        with suppress(SyntaxError):
            if changed is not None and (said := meaning(changed)) not in seen:
                seen.add(said)
                yield name, changed


def meaning(source: str) -> str:
    """The syntax tree without annotations and docstrings, which do nothing here."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(0)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(0)
    return ast.dump(tree)


def modules(words: list[str]) -> dict[Path, list[str]]:
    """Module -> its quick test files, and then the wider ones; of those at or below `words`, or of all."""
    found = {path: tests for glob, tests in TABLE["modules"].items() for path in sorted(ROOT.glob(glob))}
    wanted = [ROOT / word for word in words] or [ROOT]
    out = {}
    for path, quick in found.items():
        if any(path.is_relative_to(place) for place in wanted) and "def " in path.read_text(encoding="utf-8"):
            wider = [name for glob, tests in TABLE["wider"].items() if path in ROOT.glob(glob) for name in tests]
            out[path] = list(dict.fromkeys([*quick, *wider]))
    return out


def equivalent(name: str, said: str) -> bool:
    """Whether the table has the mutant `said` of the module `name`, or it is of how much is done at a time."""
    mutant = f"{name}: {said}"
    return mutant in TABLE["equivalent"] or any(mutant.startswith(f"{one} = ") for one in TABLE["at_once"]["names"])


def judge(tree: Path, test: str, seconds: float = float("inf")) -> tuple[str, float]:
    """What a test file in the copy `tree`, in a process of its own, says of it within so many seconds of processor:
    "killed", "survived" or "endless"; and the seconds that it took.

    Of what a mutant leaves in the cache only rendered scenes are kept: the next would read it.
    """
    cache = tree / ".cache"
    for left in cache.glob("*"):
        if left.name != "scenes":
            shutil.rmtree(left)
    os.environ["BENCH_TEST_CACHE"] = str(cache)
    child = os.fork()
    if not child:
        os.setsid()
        if math.isfinite(seconds):
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))
        sink = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(sink, stream)
        os.chdir(tree)
        sys.path[:0] = [str(tree), str(tree / "tests")]
        import pytest

        slow = " and ".join(f"not {name}" for name in TABLE["slow"]["names"])
        loaded = ["-W", "ignore:Module already imported"]  # the large libraries are, before pytest begins
        file = str(tree / "tests" / test)
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *loaded, "-k", slow, file])))
    end = time.monotonic() + WAIT / PATIENCE * seconds  # other programs may have most of the machine
    while time.monotonic() < end:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            said = "survived" if code == 0 else "endless" if code == -signal.SIGXCPU else "killed"
            return said, used.ru_utime + used.ru_stime
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "endless", seconds


def change(before: str, after: str) -> str:
    """`line -> line` of the lines that differ, stripped."""
    lines = [x for x in difflib.ndiff(before.splitlines(), after.splitlines()) if x[:2] in ("- ", "+ ")]
    gone, come = ([x[2:].strip() for x in lines if x[0] == sign] for sign in "-+")
    return f"{' / '.join(gone)} -> {' / '.join(come)}"


def seconds_of(tree: Path, test: str, known: dict[str, float]) -> float:
    """What a test file takes on the code as it is, looked up in `known` or tried; 0 where it fails there: it judges
    nothing."""
    if test not in known:
        said, used = judge(tree, test)
        known[test] = used if said == "survived" else 0.0
        if said != "survived":
            print(f"  {test} fails on the code as it is, and judges nothing", flush=True)
    return known[test]


def examine(
    path: Path, tests: list[str], tree: Path, sample: int, seed: int, known: dict[str, float]
) -> tuple[int, int, int]:
    """(killed, survived, equivalent) of the mutants of one module, or of `sample` of them; survivors are printed."""
    name = path.relative_to(ROOT).as_posix()
    source = (tree / name).read_text(encoding="utf-8")  # of the copy: the tree may be worked on meanwhile
    counts = {"killed": 0, "endless": 0, "survived": 0, "equivalent": 0}
    made = mutants(source, random.Random(f"{seed}/{name}"))
    for operator, changed in itertools.islice(made, sample or None):
        said = change(source, changed)
        if equivalent(name, said):
            counts["equivalent"] += 1
            continue
        found = "survived"
        for test in tests:
            usual = seconds_of(tree, test, known)
            if not usual:
                continue
            (tree / name).write_text(changed, encoding="utf-8")
            found, _ = judge(tree, test, max(LEAST, PATIENCE * usual))
            (tree / name).write_text(source, encoding="utf-8")
            if found != "survived":
                break
        counts[found] += 1
        if found == "survived":
            print(f"  survived {name}: {said}  ({operator.removeprefix('core/')})", flush=True)
    died = counts["killed"] + counts["endless"]
    print(f"{name}: {died} of {died + counts['survived']} killed, {counts['equivalent']} equivalent", flush=True)
    return died, counts["survived"], counts["equivalent"]


def main() -> int:
    """0 where TARGET of all mutants that are no equivalents were killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="modules or folders [default: all of mutants.toml]")
    parser.add_argument("--sample", type=int, default=0, help="mutants of each module [default: all]")
    parser.add_argument("--seed", type=int, default=0, help="which are in the sample")
    words = parser.parse_args()
    sys.dont_write_bytecode = True
    for library in LOADED:
        with suppress(ImportError):
            importlib.import_module(library)
    chosen = modules(words.paths)
    if not chosen:
        sys.exit(f"nothing of tests/mutants.toml lies at {' '.join(words.paths)}")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in TREE:
            place = ROOT / part
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(place, tree / part, ignore=ignored) if place.is_dir() else shutil.copy(place, tree / part)
        known: dict[str, float] = {}
        found = [examine(path, tests, tree, words.sample, words.seed, known) for path, tests in chosen.items()]
    killed, survived, left_out = (sum(column) for column in zip(*found))
    share = killed / max(1, killed + survived)
    print(f"{killed} of {killed + survived} mutants killed ({100 * share:.1f} %), {left_out} equivalent left out")
    return 0 if share >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
