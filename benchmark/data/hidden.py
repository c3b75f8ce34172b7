"""Names that are no data: hidden ones, and what systems, editors and packers put beside people's files.

A dot first: Jupyter's checkpoints, macOS' resource forks (._x.jpg), bins, thumbnails (.@__thumb). The others are named
here, each with who makes them. Only what lies below the place asked for counts: the place itself may be hidden.
"""

from __future__ import annotations

import re

ADDED = (
    r"__macosx"  # macOS' zip: resource forks under the names of the files
    r"|@eadir|@tmp|#recycle|#snapshot|@syno\w+"  # Synology: thumbnails, bin, snapshots
    r"|@recycle|@recently-snapshot"  # QNAP
    r"|lost\+found|~snapshot"  # ext file systems, NetApp
    r"|\$recycle\.bin|system volume information|thumbs\.db|ehthumbs\w*\.db|desktop\.ini"  # Windows
    r"|network trash folder|temporary items|icon\r"  # AFP servers, macOS
    r"|paxheaders?(\.\d+)?|gnusparsefile\.\d+"  # a pax archive unpacked by a tar that does not know it
    r"|__pycache__"
)
HIDDEN = re.compile(rf"(?:^|/)(?:\.(?!\.?(?:/|$))|(?:{ADDED})(?:/|$))", re.IGNORECASE)


def is_hidden(name: str) -> bool:
    """Whether a part of `name` (with `/`, below the place asked for) starts with a dot or is one of ADDED."""
    return HIDDEN.search(name) is not None
