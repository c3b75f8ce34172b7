"""Words from files of others (rows, data, folders) on their way into a terminal, a table or a spreadsheet."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Marks without a glyph of their own: those that turn the direction of what stands around them (Unicode's bidirectional
# controls), line and paragraph separators, and the ones that make two names look alike. U+200C and U+200D are letters'
# joiners in Persian, Hindi and emoji and stay.
MARKS = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def writable_text(text: str) -> str:
    """`text` that UTF-8 can hold: halves of characters, and bytes of a file name that are no UTF-8, are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def visible(text: str) -> str:
    """`text` with MARKS spelled out: shown, not obeyed."""
    return MARKS.sub(lambda found: found[0].encode("ascii", "backslashreplace").decode("ascii"), text)


def printable(text: str) -> str:
    """`writable_text` with MARKS and control characters but line breaks and tabs spelled out: a terminal obeys them,
    and a name with ESC in it could rewrite the screen."""
    spelled = visible(writable_text(text))
    return CONTROL.sub(lambda found: found[0] if found[0] in "\n\t" else f"\\x{ord(found[0]):02x}", spelled)


def plain_cell(value: object) -> object:
    """A CSV cell that no spreadsheet takes for a formula: such words get an apostrophe; numbers stay as they are."""
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def escape(text: str) -> str:
    """`text` as literal Markdown table content: no markup, no HTML, one line."""
    text = " ".join(visible(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`\[\]])", r"\\\1", text)
