"""Whether a Ray cluster answers at an address: Ray itself tries for a minute and more, in lines of its own."""

from __future__ import annotations

import importlib
import os
import socket
import threading
from importlib.util import find_spec
from urllib.parse import urlsplit

from benchmark.errors import BenchError, UsageError, first_line

WAIT_S = 5.0  # for an answer
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(
    [0, 0, 0, 4, 0, 0, 0, 0, 0]
)  # of HTTP/2, which gRPC speaks; settings
SETTINGS = 4  # kind of the frame that every server of HTTP/2 answers with
START = "Start one: ray start --head"


def refuse_dead_address(address: str) -> None:
    """Returns where `address` (host:port, ray://host:port or auto) answers as a cluster does, and for local.

    Raises UsageError for what is no address, BenchError where nothing answers, or something that is not Ray.
    """
    if address == "local":
        return
    said = f"--ray {address}"
    found = _running_here() if address == "auto" else address
    if not found:
        raise BenchError(f"{said}: no cluster runs on this machine, and RAY_ADDRESS is not set. {START}")
    client, place = found.startswith("ray://"), found.removeprefix("ray://")
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or place != parts.netloc:
        raise UsageError(f"{said}: {found} is no address. Give host:port, ray://host:port, auto or local")
    if client and find_spec("grpc") is None:
        raise UsageError(
            f"{said}: addresses with ray:// need pip install 'ray[client]'. Or give the head's own host:port"
        )
    if found != address:
        said += f" ({found})"
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(_fault(host, port)), daemon=True)  # a name has no timeout
    asking.start()
    asking.join(WAIT_S + 0.5)
    fault = answers[0] if answers else f"nothing answers within {WAIT_S:.0f} s"
    if fault:
        raise BenchError(f"{said}: no cluster there: {fault}. {START}")


def _running_here() -> str:
    """The cluster that `auto` means; empty: none."""
    if told := os.environ.get("RAY_ADDRESS"):
        return told
    try:
        services = importlib.import_module("ray._private.services")
        return str(services.get_ray_address_from_environment("auto", None))
    except ConnectionError:
        return ""


def _fault(host: str, port: int) -> str:
    """Why nobody is reached; empty: a server of gRPC."""
    try:
        with socket.create_connection((host, port), timeout=WAIT_S) as line:
            if os.environ.get("RAY_USE_TLS", "0") in ("1", "true", "True"):
                return ""
            line.sendall(HELLO)
            head = line.recv(9)
    except TimeoutError:
        return f"nothing answers within {WAIT_S:.0f} s"
    except OSError as e:
        return first_line(e) if isinstance(e, socket.gaierror) else (e.strerror or first_line(e))
    other = "what answers at this port is no Ray head (whose port is 6379 unless another was given)"
    return "" if len(head) == 9 and head[3] == SETTINGS else other
