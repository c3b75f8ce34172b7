"""The commands by name, the parser of their words, and what is said where one ends."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from benchmark.cli import streams
from benchmark.errors import BenchError, Ended, staying
from benchmark.system import signals
from benchmark.system.escaping import printable
from benchmark.system.files import disk_errors, machine_fault, unreadable
from benchmark.system.own_packages import NAMES, ours
from benchmark.system.torchvision_fit import misfit

# name -> "module:function or Typer app"; the order is that of `bench --help`
COMMANDS = {
    "run": "benchmark.cli.run:run",
    "plan": "benchmark.cli.plan:plan",
    "ls": "benchmark.cli.ls:ls",
    "show": "benchmark.cli.show:show",
    "check": "benchmark.cli.check:check",
    "data": "benchmark.cli.data:app",
    "cache": "benchmark.cli.cache:app",
    "train": "benchmark.cli.train:train",
    "distill": "benchmark.cli.distill:distill",
    "export": "benchmark.cli.export:export",
    "captions": "benchmark.cli.captions:captions",
    "dedup": "benchmark.cli.dedup:dedup",
    "leaderboard": "benchmark.cli.leaderboard:leaderboard",
    "publish": "benchmark.cli.publish:publish",
    "compare": "benchmark.cli.compare:compare",
    "reproduce": "benchmark.cli.reproduce:reproduce",
    "sensitivity": "benchmark.cli.sensitivity:sensitivity",
    "watch": "benchmark.cli.watch:watch",
    "look": "benchmark.cli.look:look",
}
TRAINING = {"train", "distill"}


class Interrupted(Exception):
    """Ctrl-C or SIGTERM in a command: the parser's library would end it without a word."""


@contextmanager
def _not_the_parsers() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as e:
        raise Interrupted from e


class LazyGroup(TyperGroup):
    """A command group that imports a command's module when the command is looked up."""

    def invoke(self, ctx: Any) -> Any:
        with _not_the_parsers():
            return super().invoke(ctx)

    def make_context(self, *words: Any, **more: Any) -> Any:
        with _not_the_parsers():
            return super().make_context(*words, **more)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            one = typer.Typer(add_completion=False, rich_markup_mode=None)
            one.command(cmd_name)(found)
            found = one
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})


def _version(wanted: bool) -> None:
    if wanted:
        from benchmark import __version__

        typer.echo(f"densebench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error"),
    version: bool = typer.Option(False, "--version", help="Show the version", callback=_version, is_eager=True),
) -> None:
    """Dense evaluation of image and image-text encoders: nine tasks, one extraction, every number with its interval.

    Example: bench run --model dinov2-b --task ade20k

    Exit codes: 0 done, 1 some task failed (the others are saved), 2 wrong usage, 3 regression, 130 interrupted,
    143 stopped.
    """
    if debug:
        os.environ["BENCH_DEBUG"] = "1"


def debugging() -> bool:
    """Whether --debug was given."""
    return bool(os.environ.get("BENCH_DEBUG"))


def main(argv: list[str] | None = None) -> None:
    """`bench` with these words [default: those of the process]; ends in SystemExit."""
    words = sys.argv[1:] if argv is None else argv
    try:
        code = _run(words or ["--help"])
    except (KeyboardInterrupt, Interrupted) as e:
        told = isinstance(e.__cause__ or e, signals.Stopped)
        kept = {"kept": "what its last checkpoint holds is saved"} if TRAINING & {*words} else {}
        code, line = signals.ended_by(signal.SIGTERM if told else signal.SIGINT, **kept)
        print(line, file=sys.stderr)
    except Exception as e:
        sys.exit(_explain(e))
    sys.exit(code if isinstance(code, int) else 0)


def _run(words: list[str]) -> Any:
    streams.prepare()
    # Read when torch is first imported: threads that spin while they wait make a shared machine many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if "--debug" in words:  # accepted anywhere, not only before the command
        words = [w for w in words if w != "--debug"]
        os.environ["BENCH_DEBUG"] = "1"
    with signals.until_work() if TRAINING & {*words} else signals.as_ctrl_c(), staying():
        for name in NAMES:
            ours(name)
        return app(words, prog_name="bench", standalone_mode=False)


def _help_of(error: Any) -> str:
    """The command whose --help says more."""
    where = getattr(error, "ctx", None)
    return f"{where.command_path if where else 'bench'} --help"


def _stray(error: Any) -> str:
    """Where a word stands that no argument takes, the option that it was perhaps meant for."""
    found = re.search(r"unexpected extra argument\S* \((\S+?)[ )]", error.format_message())
    command = getattr(getattr(error, "ctx", None), "command", None)
    options = {o for p in getattr(command, "params", ()) for o in p.opts}
    if not found or "--task" not in options:
        return ""
    from benchmark.registry import check_model_name, units

    word = found.group(1)
    for option, known in (("--task", units), ("--model", check_model_name)):
        try:
            known(word)
        except BenchError:
            continue
        return f"Did you mean {option} {word}? " if option in options else ""
    return ""


def _explain(error: Exception) -> int:
    """Prints one line for `error` and returns the exit code."""
    if debugging():
        traceback.print_exc()
    if isinstance(error, BenchError):
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, Ended):
        print(f"error: code that was called {printable(str(error))}: its exit code is none of bench's", file=sys.stderr)
        return 1
    if hasattr(error, "format_message"):  # the parser's own: unknown option, missing argument
        message = " ".join((error.format_message() or "missing argument").split())
        print(f"error: {printable(message)} {_stray(error)}See {_help_of(error)}", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    if isinstance(error, PermissionError):
        print(f"error: {printable(unreadable(error))}", file=sys.stderr)
        return 1
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        try:
            with disk_errors(Path(error.filename or "results")):
                raise error
        except BenchError as e:
            print(f"error: {printable(str(e))}", file=sys.stderr)
            return 1
    if isinstance(error, OSError) and (said := machine_fault(error)):
        print(f"error: {printable(said)}", file=sys.stderr)
        return 1
    if type(error).__name__ == "Abort":
        return 1
    if line := misfit(error):
        print(f"error: {printable(line)}", file=sys.stderr)
        return 2
    detail = printable(str(error).splitlines()[0]) if str(error) else "no message"
    print(
        f"error: {type(error).__name__}: {detail}. This is a defect of densebench: run with --debug and report it",
        file=sys.stderr,
    )
    return 1
