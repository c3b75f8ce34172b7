"""The command that makes a row which a comparison lacks."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from benchmark.compare.sides import Side
from benchmark.rows.row import Row
from benchmark.system.paths import reference_dir

OF_A_MODEL = (
    "--model", "--weights", "--name", "--backend", "--gelu", "--positions", "--dtype", "--store", "--seed", "--data",
    "--results",
)  # fmt: skip
CODE = "--trust-remote-code"


def missing(unit: str, side: Side, other: Row | None = None) -> str:
    """The line for a row of `unit` that `side` lacks, with the command that makes it to be set beside `other`."""
    return f"{unit}: not compared: {side.name} has no row of it. Make it: {command(unit, side, other)}"


def command(unit: str, side: Side, other: Row | None) -> str:
    """`bench run` as it measured the rows of `side`, on `unit`, with the preset and limit of `other`."""
    words = [*_model(side), "--task", _word(unit, other)]
    if other and (preset := other.data.protocol.name.removesuffix("+set")) != "fast":
        words += ["--protocol", preset]
    if other and other.data.task.limit:
        words += ["--limit", str(other.data.task.limit)]
    return " ".join(["bench run", *(shlex.quote(word) for word in words)])


def _model(side: Side) -> list[str]:
    """The words that name the model in the command of one of its rows, without those that say what is measured."""
    for row in side.rows:
        words = _words(row)
        if words.count("--model") == 1 and reference_dir() not in row.folder.parents:
            return list(_taken(words))
    facts = side.rows[0].data.model if side.rows else None
    return ["--model", (facts.asked if facts else None) or side.name]


def _word(unit: str, other: Row | None) -> str:
    """What --task takes for `unit`: of data of one's own the file, where the other side's command names just one."""
    if other is None or other.data.task.place is None:
        return unit
    named = [word for word in _words(other) if word.endswith(".toml")]
    return named[0] if len(named) == 1 else "FILE.toml"


def _words(row: Row) -> list[str]:
    """The words behind `bench run` of a row's command; none where Python made it."""
    try:
        words = shlex.split(row.data.command)
    except ValueError:
        return []
    return words[2:] if words[:2] == ["bench", "run"] else []


def _taken(words: Sequence[str]) -> Iterator[str]:
    """The options of `words` that are the model's, with their values."""
    for word, following in zip(words, [*words[1:], ""]):
        option, equals, _ = word.partition("=")
        if option in OF_A_MODEL or word == CODE:
            yield word
        if word in OF_A_MODEL and not equals:
            yield following
