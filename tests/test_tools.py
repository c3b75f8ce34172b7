"""The tables of tests/bounds.py and tests/mutants.py name what is there; contracts name what is looked up."""

from __future__ import annotations

import ast
import random
import re
import tomllib
from pathlib import Path

import bounds
import mutants
import pytest

from benchmark.contracts import Task
from tasks.caption_retrieval import Cosine

ROOT = Path(__file__).parents[1]
JUDGED = ("benchmark/metrics", "benchmark/statistics", "benchmark/heads", "tasks")
SOURCE = '''def half(x: int | None) -> float:
    """1 + 1"""
    return x / 2 if x > 0 else 0.5
'''


def test_every_module_that_makes_a_number_has_mutants_and_tests_that_judge_them() -> None:
    table = mutants.modules([])
    made = {path for place in JUDGED for path in (ROOT / place).glob("*.py") if path.read_text().count("def ")}
    alone = ("protocol", "compare/compare", "compare/classes")
    assert made | {ROOT / "benchmark" / f"{name}.py" for name in alone} <= set(table)
    assert all((ROOT / "tests" / name).is_file() for tests in table.values() for name in tests)
    for path, tests in table.items():
        quick = next(of for glob, of in reversed(mutants.TABLE["modules"].items()) if path in ROOT.glob(glob))
        assert tests[: len(quick)] == quick and len(quick) < len(tests) == len(set(tests)), path


def test_what_no_test_can_kill_is_told_by_its_line_or_by_its_constant() -> None:
    for word in mutants.TABLE["at_once"]["names"]:
        module, name = word.split(": ")
        assert f"\n{name} = " in (ROOT / module).read_text(), word
    assert mutants.equivalent("tasks/dense.py", "BLOCK = 32  # … -> BLOCK = 33  # …")
    assert not mutants.equivalent("tasks/dense.py", "BLOCKS = 32 -> BLOCKS = 33")
    assert mutants.equivalent(*next(iter(mutants.TABLE["equivalent"])).split(": ", 1))


def test_mutants_change_what_python_does_and_leave_annotations_and_docstrings() -> None:
    assert mutants.meaning(SOURCE) == mutants.meaning(SOURCE.replace("int | None", "float").replace("1 + 1", "2"))
    assert mutants.meaning(SOURCE) != mutants.meaning(SOURCE.replace("x > 0", "x >= 0"))
    assert mutants.change(SOURCE, SOURCE.replace("x > 0", "x >= 0")) == (
        "return x / 2 if x > 0 else 0.5 -> return x / 2 if x >= 0 else 0.5"
    )
    assert random.Random("0/a").random() == random.Random("0/a").random()


def test_no_member_is_looked_up_by_a_name_that_the_contracts_do_not_have() -> None:
    """`getattr` with a name, on what others write, is a contract that nobody can read; so is a fork on a protocol."""
    found, forks = set(), []
    for path in (path for room in ("benchmark", "tasks") for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or len(node.args) < 2:
                continue
            if node.func.id == "getattr" and isinstance(node.args[1], ast.Constant):
                found.add((path.relative_to(ROOT).parts[1], node.args[1].value))
            if node.func.id == "isinstance" and ast.unparse(node.args[0]).split(".")[-1] == "protocol":
                forks.append(path)
    python = {"__dict__", "__name__", "buffer", "exit_code", "ipv4_mapped", "name", "raw", "reason", "unread"}
    python |= {"ctx", "command", "params"}  # of errors of the command line's parser
    assert {pair for pair in found if pair[0] != "system" and pair[1] not in python} == set() and forks == []


def test_no_adapter_reaches_a_task_or_the_engine_by_a_string() -> None:
    """import-linter sees imports alone; a name that is imported when it is needed would be a way past it."""
    above = re.compile(r"(tasks|benchmark\.(cli|compare|engine|forecast|leaderboard|watch))(\.\w+)*:\w+")
    reached = {
        (path.name, node.value)
        for path in (ROOT / "adapters").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and above.fullmatch(node.value)
    }
    assert reached == set()


def test_a_task_whose_protocols_do_not_tell_its_methods_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="task twice: two methods have one schema. Give each a dataclass of its own"):
        Task("twice", "labels", {"one": Cosine, "two": type("Other", (Cosine,), {})})


def test_the_smoke_part_is_there_and_every_dependency_has_a_lowest_release() -> None:
    assert all((ROOT / "tests" / name).is_file() for name in bounds.SMOKE)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert all(">=" in text or "==" in text for text in wanted), "a bound is missing"
    assert bounds.numbers("2.0.0") == bounds.numbers("2.0") != bounds.numbers("2.0.1+cpu")
