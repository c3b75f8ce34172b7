"""Words from files of others (rows, data, folders) on their way into a terminal, a table or a spreadsheet."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def writable_text(text: str) -> str:
    """`text` that UTF-8 can hold: halves of characters, and bytes of a file name that are no UTF-8, are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """`writable_text` with control characters but line breaks and tabs spelled out: a terminal obeys them, and a name
    with ESC in it could rewrite the screen."""
    spelled = writable_text(text)
    return CONTROL.sub(lambda found: found[0] if found[0] in "\n\t" else f"\\x{ord(found[0]):02x}", spelled)


def plain_cell(value: object) -> object:
    """A CSV cell that no spreadsheet takes for a formula: such words get an apostrophe; numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def escape(text: str) -> str:
    """`text` as literal Markdown table content: no markup, no HTML, one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`\[\]])", r"\\\1", text)
