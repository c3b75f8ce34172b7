"""`--offline`: nothing leaves this machine, by a proxy on it neither."""

from __future__ import annotations

import os
import socket
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmark.engine.network import forbid_network
from benchmark.errors import BenchError


class Proxy(BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Silent."""


def test_a_local_proxy_carries_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "NO_PROXY", "no_proxy")
    for name in names:  # given back after the test, as is the socket's method
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(socket.socket, "connect", socket.socket.connect)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    try:
        forbid_network()
        with pytest.raises(BenchError, match=r"--offline: a connection to 192\.0\.2\.1 was refused"):
            urllib.request.urlopen("http://192.0.2.1/weights", timeout=5)
    finally:
        server.shutdown()
    assert Proxy.asked == []
