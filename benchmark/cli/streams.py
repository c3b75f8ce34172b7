"""Standard output and error as a shell may hand them over: closed, without arrows, or a pipe that nobody reads."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO, cast

import typer


class _Pipe(io.FileIO):
    """A file descriptor whose reader may leave (`| head`): what is written afterwards is dropped."""

    unread = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            self.unread = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def prepare() -> None:
    """Makes both streams of this process safe to print to.

    A reader that leaves changes neither the work nor the exit code, which says what became of the command. A sign that
    the encoding lacks is printed as its escape, which `--json` reads back. A closed stream swallows what it is given.
    Streams that someone put in the place of the process's own are left alone.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and not isinstance(_raw(stream), _Pipe):
            stream.flush()
            whole = io.BufferedWriter(_Pipe(descriptor, "w", closefd=False))
            text = io.TextIOWrapper(
                whole,
                stream.encoding,
                "backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, text)


def say_while_heard(text: str) -> None:
    """Prints a line of a command that would go on for ever; raises BrokenPipeError once nobody reads them."""
    typer.echo(text)
    if getattr(_raw(sys.stdout), "unread", False):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _raw(stream: TextIO) -> Any:
    return getattr(cast(Any, getattr(stream, "buffer", None)), "raw", None)
