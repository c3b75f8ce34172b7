"""Errors meant for people: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class BenchError(Exception):
    """Base of every error the command line prints without a traceback (exit code 1 inside a task)."""

    exit_code = 1


class UsageError(BenchError):
    """The words of the command are wrong: unknown name, malformed file, impossible option (exit code 2)."""

    exit_code = 2


class DataError(BenchError):
    """A dataset is missing, partial or damaged; the message names the first path and the remedy."""


class WeightsError(BenchError):
    """A weight file cannot be used; the message names the file and, where there is one, the key."""


class EncoderError(BenchError):
    """An encoder broke its contract: wrong shape, NaN, rows that depend on the batch."""


class NotApplicable(BenchError):
    """A task an encoder cannot do, with the reason; reported as such, never as a zero."""


class MissingExtra(UsageError):
    """An optional package is not installed; the message is the install line."""

    def __init__(self, feature: str, extra: str, detail: str = "") -> None:
        hint = f" ({detail})" if detail else ""
        super().__init__(
            f"{feature} needs an extra that is not installed{hint}. Get it: pip install 'densebench[{extra}]'"
        )


def unknown(what: str, name: str, known: Iterable[str], listing: str) -> UsageError:
    """A UsageError for an unregistered `name`, with the closest matches and where the full list is."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    return UsageError(f"unknown {what} {name!r}.{hint} All: {listing}")


OWN = (KeyboardInterrupt, GeneratorExit)  # no fault of a file or of its reader; what else ends a process is


class Ended(Exception):
    """Code of others would have ended the process, with `sys.exit` or by an error that no program expects."""


@contextmanager
def staying() -> Iterator[None]:
    """Raises Ended where code of others would end the process: its exit code must never pass for ours."""
    try:
        yield
    except (Exception, *OWN):
        raise
    except BaseException as e:  # SystemExit, or what a library in Rust calls a panic
        raise Ended(ending(e)) from e


def ending(error: BaseException) -> str:
    """The words for an error that would end the process."""
    return f"calls sys.exit({error.code!r})" if isinstance(error, SystemExit) else first_line(error)


@contextmanager
def reading(
    where: Callable[[], str] | object, what: str, remedy: str, error: Callable[[str], BenchError] = DataError
) -> Iterator[None]:
    """Turns whatever a library raises while it reads somebody's file into one `error` that names the file.

    "WHERE: WHAT (why). REMEDY". Errors of our own pass: they say it better.
    """
    try:
        yield
    except (BenchError, *OWN):
        raise
    except BaseException as e:  # no library promises what its parser raises for damaged bytes
        place = where() if callable(where) else where
        raise error(f"{place}: {what} ({ending(e).rstrip('.')}). {remedy}") from e


def first_line(error: BaseException) -> str:
    """What a library's error says in its first line, without addresses in memory; its kind where it says nothing."""
    return re.sub(r" ?<[\w.]+ object at 0x[0-9a-fA-F]+>", "", (str(error).splitlines() or [type(error).__name__])[0])
