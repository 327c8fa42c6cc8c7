"""One request for a file over HTTP or FTP: from which byte on, and why it was refused.

Not responsible for asking again, other mirrors or what is written to disk: `transfer`.
"""

import re
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ftplib import FTP, error_perm
from ftplib import Error as FtpError
from typing import NamedTuple

import requests
import urllib3

from sigah_jax.errors import printable

_CHUNK_BYTES = 1 << 18
REASON_CHARS = 300  # of what a server said
NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    FtpError,
    OSError,
    EOFError,
)
TIMEOUTS = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)


class Wanted(NamedTuple):
    """What a complete download is."""

    size_bytes: int
    digest: str  # "md5:<hex>"; empty: unknown
    prefix: bool  # the first bytes of a larger file


class Body(NamedTuple):
    """A server's answer that brings bytes."""

    start: int  # position of the first byte in the file
    version: str  # changes when the file on the server does; empty: unknown
    chunks: Iterator[bytes]


class Refusal(NamedTuple):
    """Why an attempt did not bring the whole file."""

    reason: str
    again: bool = False  # the same mirror may give it later
    discard: bool = False  # the bytes held are of no use


def open_url(
    url: str, start: int, version: str, wanted: Wanted, timeout: float, stack: ExitStack
) -> Body | Refusal:
    """Asks one server once for the bytes of a file from `start` on.

    The answer may start at 0 instead, if the server cannot continue.

    Args:
        url: `http(s)://` or `ftp://`.
        version: what the bytes before `start` are of; empty: unknown, any will do.
        timeout: seconds without an answer or a byte.
        stack: closes the connection.

    Returns:
        What comes, its `chunks` may still raise NETWORK_ERRORS; or why nothing does.
    """
    ask = _open_ftp if url.startswith("ftp://") else _open_http
    try:
        answer = ask(url, start, version, wanted, timeout, stack)
    except (*NETWORK_ERRORS, ValueError) as e:  # ValueError: an address or a number that is none
        answer = _network_refusal(e, timeout)
    if isinstance(answer, Refusal):  # the one place where a server's words may reach a terminal
        answer = answer._replace(reason=printable(answer.reason[:REASON_CHARS]))
    return answer


def _open_http(
    url: str, start: int, version: str, wanted: Wanted, timeout: float, stack: ExitStack
) -> Body | Refusal:
    # without "identity" a server may compress, and positions would be those of something else
    headers = {"Accept-Encoding": "identity"}
    if start or wanted.prefix:
        headers["Range"] = f"bytes={start}-{wanted.size_bytes - 1 if wanted.prefix else ''}"
    if start and version:
        headers["If-Range"] = version
    response = requests.get(url, headers=headers, stream=True, timeout=timeout)
    stack.callback(response.close)
    status, got = response.status_code, response.headers
    if status not in (200, 206):
        again = status in (408, 416, 429) or status >= 500
        return Refusal(f"HTTP {status} {response.reason}", again, discard=status == 416)
    if got.get("Content-Type", "").startswith("text/html"):
        return Refusal("sent an HTML page in place of the file")
    etag = got.get("ETag", "")
    now = etag if etag.startswith('"') else got.get("Last-Modified", "")  # weak ETags do not count
    length = got.get("Content-Length", "")
    if status == 206:
        asked, _, length = got.get("Content-Range", "").partition("/")
        if not asked.startswith(f"bytes {start}-"):
            return Refusal(f"answers with the range {asked!r}, asked for byte {start} on")
        if start and version and now and now != version:
            return Refusal("the file on the server has changed", again=True, discard=True)
    elif wanted.prefix:
        if start and version:  # If-Range failed
            return Refusal("the file on the server has changed", again=True, discard=True)
        whole = f"all {int(length) / 1e9:.3g} GB" if _is_size(length) else "the whole file"
        return Refusal(
            f"does not serve byte ranges; {whole} would have to come for the first "
            f"{wanted.size_bytes} bytes"
        )
    else:
        start = 0
    if _is_size(length):
        total, expected = int(length), wanted.size_bytes
        if total < expected or (total > expected and not wanted.prefix):
            return Refusal(f"has {total} bytes, expected {expected}")
    return Body(start, now, _chunks(response.raw))


def _chunks(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    try:
        yield from raw.stream(_CHUNK_BYTES, decode_content=False)
    except ValueError as e:  # a chunk of negative length
        raise EOFError from e


def _is_size(text: str) -> bool:
    return re.fullmatch("[0-9]{1,18}", text) is not None


def _open_ftp(
    url: str, start: int, version: str, wanted: Wanted, timeout: float, stack: ExitStack
) -> Body | Refusal:
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parts.path)
    ftp = FTP(timeout=timeout)
    stack.callback(ftp.close)
    ftp.connect(parts.hostname, parts.port or 0)
    ftp.login()
    ftp.voidcmd("TYPE I")
    size = ftp.size(path)
    if size != wanted.size_bytes:
        return Refusal(f"has {size} bytes, expected {wanted.size_bytes}")
    now = ""
    with suppress(error_perm):  # not every server tells the time
        now = ftp.voidcmd(f"MDTM {path}")
    if start and version and now != version:
        return Refusal("the file on the server has changed", again=True, discard=True)
    try:
        data = ftp.transfercmd(f"RETR {path}", rest=start or None)
    except error_perm:
        if not start:
            raise
        start, data = 0, ftp.transfercmd(f"RETR {path}")  # a server without REST
    stack.callback(data.close)
    return Body(start, now, iter(lambda: data.recv(_CHUNK_BYTES), b""))


def _network_refusal(e: Exception, timeout: float) -> Refusal:
    """The reason in a few words; urllib3 wraps it several times."""
    if isinstance(e, error_perm):
        return Refusal(f"FTP {e}", again=str(e).startswith("530"))  # 530: too many users
    if isinstance(e, ValueError):  # requests: not a URL
        return Refusal(str(e))
    if isinstance(e, TIMEOUTS):
        return Refusal(f"no answer for {timeout:g} s", again=True)
    inner = e.args[0] if e.args and isinstance(e.args[0], Exception) else e
    inner = getattr(inner, "reason", inner)
    return Refusal(f"no connection ({str(inner).rpartition('): ')[2]})", again=True)
