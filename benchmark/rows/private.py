"""Paths, host names and tokens in the texts of a row that is to leave this machine."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

GONE = "…"
NAMES_OF_MACHINES = frozenset({"node", "nodelist", "slurm_job_nodelist", "nodename", "user", "username", "home", "cwd"})
_TAIL = r"[^\s'\"<>|,;()\[\]{}]"  # of a path, up to what ends a word
_FILE = r"(?:jpe?g|png|webp|bmp|tiff?|gif|jp2|npz|npy|mat|h5|safetensors|pth?|json|csv|txt|toml|tar|zip|parquet)(?!\w)"
PATHS = re.compile(
    rf"(?:file://)?(?<![\w.:/~\\])/[^\s'\"<>|,;()\[\]{{}}/]+/{_TAIL}*"  # /home/me/x: two parts or more
    rf"|file://{_TAIL}+"
    rf"|(?<!\w)~[\w.-]*/{_TAIL}+"
    rf"|(?<![\w.])\.\.[/\\]{_TAIL}*"
    rf"|(?<![A-Za-z0-9])[A-Za-z]:[\\/]{_TAIL}+"  # C:\Users\me
    rf"|(?<!\\)\\\\\w{_TAIL}*"  # \\server\share
)
SEPARATORS = re.compile(r"[/\\]")
ROOTED = re.compile(rf"(?<=[\s='\"])/{_TAIL}+")  # one part is enough in a command: --data /scratch
OTHERS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}\b"  # an access token
    # An address. None is PCK@0.1, photo@host.jpg, or a checkpoint as rows call it, name@run.best-6e2cac.
    rf"|[\w.+-]+@(?:[\w-]+\.)+(?!{_FILE})[A-Za-z]{{2,}}(?!\w|\.\w|-[0-9a-f]{{6}}\b)"
    r"|\b[\w-]+(?:\.[\w-]+)*\.(?:local|localdomain|lan|internal|intranet|corp|home\.arpa)\b"
    r"|\b(?:(?:10|127)(?:\.\d{1,3}){3}|(?:192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2})\b"  # private addresses
    rf"(?!\.{_FILE})"  # 10.0.0.1.png is a file
)


def host_names() -> list[str]:
    """What this machine calls itself, long and short, where that is a name."""
    name = socket.gethostname()
    return [n for n in dict.fromkeys((name, name.split(".")[0])) if len(n) > 3 and n != "localhost"]


def cleaned(text: str, command: bool = False) -> str:
    """`text` with the last part of each path alone, and without host names, addresses and tokens."""

    def last(found: re.Match[str]) -> str:
        return f"{GONE}/" + SEPARATORS.split(found[0].rstrip("/\\"))[-1].lstrip("~")

    for place in {str(Path.home()), str(Path.cwd())} - {"/"}:
        text = re.sub(rf"{re.escape(place)}(?=/|\s|$)", f"/{GONE}/{GONE}", text)  # with the spaces that it may hold
    text = PATHS.sub(last, text)
    text = ROOTED.sub(last, text) if command else text
    text = OTHERS.sub(GONE, text)
    for name in host_names():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", GONE, text)
    return text


def scrubbed(value: Any, note: Callable[[str], None], where: str = "") -> Any:
    """JSON `value` with every text `cleaned`; `note` is told the name of each field that changed."""
    if isinstance(value, str):
        new = cleaned(value, command=where == "command")
        if new != value:
            note(where)
        return new
    if isinstance(value, Mapping):
        out = {}
        for name, entry in value.items():
            inside = f"{where}.{name}".removeprefix(".")
            if (name.lower() in NAMES_OF_MACHINES or "host" in name.lower()) and isinstance(entry, str) and entry:
                note(inside)
                continue
            out[scrubbed(name, note, where)] = scrubbed(entry, note, inside)
        return out
    if isinstance(value, (list, tuple)):
        return [scrubbed(entry, note, where) for entry in value]
    return value


def private_texts(texts: Iterator[str]) -> str | None:
    """The first of `texts` that `cleaned` would change."""
    return next((text for text in texts if cleaned(text) != text), None)
