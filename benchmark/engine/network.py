"""`--offline`: no hub, no sockets."""

from __future__ import annotations

import os
import socket
from typing import Any

from benchmark.errors import BenchError

LOCAL = ("127.0.0.1", "::1", "localhost")


def forbid_network() -> None:
    """Tells the hub libraries to stay offline and makes any connection past this machine an error of one line."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"
    for name in ("NO_PROXY", "no_proxy"):  # a proxy on this machine would carry a request past it
        os.environ[name] = "*"
    if getattr(socket.socket.connect, "densebench", False):
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise BenchError(
                f"--offline: a connection to {address[0]} was refused. Fetch weights and data first, without --offline"
            )
        connect(self, address)

    guarded.densebench = True  # type: ignore[attr-defined]
    socket.socket.connect = guarded  # type: ignore[method-assign,assignment]
