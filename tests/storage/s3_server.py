"""An S3 server on loopback, and a proxy before it that fails as networks and storage do."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from moto.server import ThreadedMotoServer

BUCKET = "bucket"
Fault = Callable[["_Handler"], bool]
"""Called with a request; true if it has dealt with it."""
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
INTERNAL = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We encountered an error</Message></Error>"


class S3Server:
    """moto's server behind a proxy.

    Attributes:
        fault: decides about every request; by default none fails.
        requests: method and path of each, in order.
    """

    def __init__(self) -> None:
        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.moto.start()
        self.fault: Fault = lambda request: False
        self.requests: list[tuple[str, str]] = []
        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.proxy.daemon_threads = True
        self.proxy.server = self  # type: ignore[attr-defined]
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        self.proxy.shutdown()
        self.moto.stop()


class _Handler(BaseHTTPRequestHandler):
    """Passes requests on to moto, unless the server's fault deals with them."""

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        owner: S3Server = self.server.server  # type: ignore[attr-defined]
        self.body = self._body()
        owner.requests.append((self.command, self.path))
        if not owner.fault(self):
            self.answer(*self.forward())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def forward(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """What moto answers."""
        host, port = self.server.server.moto.get_host_and_port()  # type: ignore[attr-defined]
        connection = http.client.HTTPConnection(host, port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        headers["Content-Length"] = str(len(self.body))
        connection.request(self.command, self.path, self.body, headers)
        response = connection.getresponse()
        found = response.status, response.getheaders(), response.read()
        connection.close()
        return found

    def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(content)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def fail(self, status: int, content: bytes) -> bool:
        """Answer with an error of the storage."""
        self.answer(status, [("Content-Type", "application/xml")], content)
        return True

    def drop(self) -> bool:
        """Let the connection end without an answer."""
        self.close_connection = True
        return True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""


def every(number: int, fault: Fault) -> Fault:
    """The fault at every so manieth request."""
    counter = iter(range(1, 10**9))
    lock = threading.Lock()

    def sometimes(request: Any) -> bool:
        with lock:
            due = next(counter) % number == 0
        return due and fault(request)

    return sometimes


def answers_500(request: Any) -> bool:
    return bool(request.fail(500, INTERNAL))


def throttles(request: Any) -> bool:
    return bool(request.fail(503, SLOW_DOWN))


def loses_answers(request: Any) -> bool:
    """The storage does what it is asked, and the answer does not arrive."""
    request.forward()
    return bool(request.drop())


def times_out(request: Any) -> bool:
    """No answer for longer than the client waits (the test sets how long that is)."""
    time.sleep(3)
    return bool(request.drop())


def kills(pid: int, method: str, part: str, before: bool) -> Fault:
    """SIGKILL to a process at its first request of this method whose path has `part`, before or after it is done."""

    def kill(request: Any) -> bool:
        if request.command != method or part not in request.path:
            return False
        if not before:
            request.forward()
        os.kill(pid, signal.SIGKILL)
        return bool(request.drop())

    return kill
