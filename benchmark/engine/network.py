"""`--offline`: no hub, no sockets, no name look-ups."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from typing import Any

from benchmark.errors import BenchError

HUBS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_XET")  # xet is no Python
TO_ADDRESS = ("socket.connect", "socket.sendto", "socket.sendmsg")  # connect_ex says connect, too
LOOK_UPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
_forbidden = False
_hooked = False


def forbid_network() -> None:
    """Tells the hub libraries to stay offline, and makes whatever would leave this machine an error of one line:
    connections, datagrams, names that are looked up.

    Python itself reports each of them, whichever library asks (audit hooks, PEP 578), before anything is sent.
    """
    global _forbidden, _hooked
    for name in HUBS:
        os.environ[name] = "1"
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # a proxy on this machine would carry a request past it
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # nor one that the system knows
    _forbidden = True
    if not _hooked:
        _hooked = True
        sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if not _forbidden or not event.startswith("socket."):
        return
    if event in TO_ADDRESS and args[0].family in (socket.AF_INET, socket.AF_INET6):
        if args[1] is not None and not _is_local(args[1][0]):  # None: a datagram on a socket that is connected
            raise BenchError(f"--offline: a connection to {_word(args[1][0])} was refused. {REMEDY}")
    elif event in LOOK_UPS:
        host = args[0][0] if event == "socket.getnameinfo" else args[0]
        if not _is_local(host):
            raise BenchError(f"--offline: the look-up of {_word(host)} was refused. {REMEDY}")


REMEDY = "Fetch weights and data first, without --offline"


def _word(host: Any) -> str:
    return host.decode("ascii", "backslashreplace") if isinstance(host, (bytes, bytearray)) else str(host)


def _is_local(host: Any) -> bool:
    """Whether a host is this machine by its number, or by the one name that needs no look-up."""
    if host is None or host in ("", b""):  # all of this machine's addresses
        return True
    word = _word(host).rstrip(".").lower()
    if word == "localhost":
        return True
    try:
        address = ipaddress.ip_address(word.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)
