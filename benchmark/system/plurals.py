"""A number with its noun."""

from __future__ import annotations


def number_of(count: int, noun: str) -> str:
    """`1 picture`, `4,000 pictures`, `2 classes`, `0 queries`."""
    if count != 1:
        if noun.endswith(("s", "x", "ch", "sh")):
            noun += "es"
        elif noun.endswith("y") and noun[-2:-1] not in "aeiou":
            noun = f"{noun[:-1]}ies"
        else:
            noun += "s"
    return f"{count:,} {noun}"
