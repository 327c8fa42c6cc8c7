"""Servers on this machine that misbehave as told, and what they serve.

Not responsible for what is expected of a download: the tests that import it.
"""

import contextlib
import hashlib
import http.server
import io
import socketserver
import tarfile
import threading
from typing import NamedTuple

import numpy as np
import pytest

from sigah_jax.data import transfer

FAST = transfer.Patience(tries=3, back_off_secs=0.001, timeout_secs=5)
DATA = np.random.default_rng(0).bytes(1_000_000)
CUT = 400_000  # 40 % of DATA


class Page(NamedTuple):
    """How the server answers one request for a path."""

    data: bytes = DATA
    status: int = 200
    cut: int = 1 << 62  # the connection ends at this byte of the file
    ranges: bool = True
    etag: str = '"one"'
    kind: str = "application/octet-stream"
    heeds: bool = True  # If-Range
    skew: int = 0  # error of the position in Content-Range
    claim: int = 0  # another Content-Length; -1: none
    gate: threading.Event | None = None  # waited for before the second half


class Hit(NamedTuple):
    """What the server was asked and how many bytes it gave."""

    path: str
    range: str | None
    sent: int


@contextlib.contextmanager
def serve(pages):
    """Yields (address, hits). `pages`: path -> its Pages, one a request, the last for good."""
    pages = {path: list(answers) for path, answers in pages.items()}
    hits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answers = pages.get(self.path, [Page(b"gone", 404)])
            page = answers.pop(0) if len(answers) > 1 else answers[0]
            asked, condition = self.headers["Range"], self.headers["If-Range"]
            size, start, end, status = len(page.data), 0, len(page.data), page.status
            if asked and page.ranges and (condition in (None, page.etag) or not page.heeds):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last or size), size - 1) + 1
                status = 206 if start < size else 416
                start = min(start, end)
            self.send_response(status)
            self.send_header("Content-Type", page.kind)
            if page.claim >= 0:
                self.send_header("Content-Length", str(page.claim or end - start))
            if page.etag:
                self.send_header("ETag", page.etag)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start + page.skew}-{end - 1}/{size}")
            body = page.data[start : min(end, page.cut)]
            hits.append(Hit(self.path, asked, len(body)))  # before the client can go on
            self.end_headers()
            half = len(body) // 2
            self.wfile.write(body[:half])
            if page.gate:
                self.wfile.flush()
                page.gate.wait(20)
            self.wfile.write(body[half:])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that hangs up is meant
    with server, serving(server):
        yield f"http://127.0.0.1:{server.server_port}", hits


@contextlib.contextmanager
def serving(server):
    """Lets a server answer in a thread."""
    more = {"poll_interval": 0.01}
    thread = threading.Thread(target=server.serve_forever, kwargs=more, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(20)


@contextlib.contextmanager
def serve_bytes(answer):
    """Yields the address of a server that answers every request with these bytes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65536)
            self.request.sendall(answer)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with server, serving(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


@contextlib.contextmanager
def serve_ftp(directory, cut=1 << 62):
    """Yields (address, bytes sent by each transfer); the first transfer is cut at `cut` bytes."""
    reason = "pyftpdlib is not installed"
    servers = pytest.importorskip("pyftpdlib.servers", reason=reason)
    handlers = pytest.importorskip("pyftpdlib.handlers", reason=reason)
    authorizers = pytest.importorskip("pyftpdlib.authorizers", reason=reason)
    sent = []

    class Data(handlers.DTPHandler):
        ac_out_buffer_size = CUT

        def use_sendfile(self):
            return False

        def initiate_send(self):
            if not sent and self.tot_bytes_sent >= cut:
                self.close()
            else:
                super().initiate_send()

        def close(self):
            if not self._closed:
                sent.append(self.tot_bytes_sent)
            super().close()

    class Handler(handlers.FTPHandler):
        dtp_handler = Data
        authorizer = authorizers.DummyAuthorizer()
        use_sendfile = False

    Handler.authorizer.add_anonymous(str(directory))
    server = servers.FTPServer(("127.0.0.1", 0), Handler)
    stop = threading.Event()

    def loop():
        while not stop.is_set():
            server.serve_forever(timeout=0.01, blocking=False)

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield f"ftp://127.0.0.1:{server.socket.getsockname()[1]}", sent
    finally:
        stop.set()
        thread.join(20)
        server.close_all()


def md5(data):
    return "md5:" + hashlib.md5(data).hexdigest()


def tar_gz(members):
    """Bytes of a .tar.gz of {name: content, or TarInfo}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            info.size = len(content) if isinstance(content, bytes) else info.size
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def names(directory):
    return sorted(entry.name for entry in directory.iterdir())
