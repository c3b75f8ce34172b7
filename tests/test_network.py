"""`--offline`: nothing leaves this machine: no connection, no datagram, no look-up, by a proxy on it neither."""

from __future__ import annotations

import _socket
import os
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmark.engine import network
from benchmark.engine.network import forbid_network
from benchmark.errors import BenchError

OUT = ("192.0.2.1", 80)  # of the block that is for documents: nobody answers there


class Proxy(BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    found = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, server: ThreadingHTTPServer) -> Iterator[None]:
    for name in (*network.HUBS, "NO_PROXY", "no_proxy"):  # given back after the test
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    forbid_network()
    yield
    network._forbidden = False


def udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


WAYS: dict[str, Callable[[], object]] = {
    "connect": lambda: socket.socket().connect(OUT),
    "connect_ex": lambda: socket.socket().connect_ex(OUT),
    "create_connection": lambda: socket.create_connection(OUT, timeout=5),
    "the C module": lambda: _socket.socket().connect(OUT),
    "a datagram": lambda: udp().sendto(b"x", OUT),
    "a connected datagram": lambda: udp().connect(OUT),
    "sendmsg": lambda: udp().sendmsg([b"x"], [], 0, OUT),
    "IPv6": lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
    "getaddrinfo": lambda: socket.getaddrinfo("example.com", 80),
    "a number as bytes": lambda: socket.getaddrinfo(b"192.0.2.1", 80),
    "gethostbyname": lambda: socket.gethostbyname("example.com"),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("example.com"),
    "gethostbyaddr": lambda: socket.gethostbyaddr("192.0.2.1"),
    "getnameinfo": lambda: socket.getnameinfo(OUT, 0),
    "a name below localhost": lambda: socket.getaddrinfo("localhost.example.com", 80),
    "urlopen past a proxy": lambda: urllib.request.urlopen("http://192.0.2.1/weights", timeout=5),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_out_is_closed(offline: None, way: str) -> None:
    with pytest.raises(BenchError, match=r"--offline: (a connection to|the look-up of) \S+ was refused"):
        WAYS[way]()
    assert Proxy.asked == []


def test_this_machine_can_be_reached(offline: None, server: ThreadingHTTPServer) -> None:
    for host in ("127.0.0.1", "localhost"):
        with socket.create_connection((host, server.server_port), timeout=5) as there:
            assert there.getpeername()[1] == server.server_port
    assert udp().sendto(b"x", ("127.0.0.1", server.server_port)) == 1
    assert "http_proxy" not in os.environ


def test_without_offline_nothing_is_refused(offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_forbidden", False)
    assert socket.getaddrinfo("192.0.2.1", 80, flags=socket.AI_NUMERICHOST)
