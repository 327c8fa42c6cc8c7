"""One file over HTTP or FTP: continued where it was cut, checked, then renamed into place.

While it comes it is `<name>.part`; `<name>.part.json` says from which URL and which version.

Not responsible for how a server is asked (`protocols`), for what a file means, nor for two
programs that fetch the same file at once: `download` locks.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from sigah_jax.data.protocols import NETWORK_ERRORS, TIMEOUTS, Body, Refusal, Wanted, open_url
from sigah_jax.files import whole


class Patience(NamedTuple):
    """How long a mirror is asked."""

    tries: int = 5  # attempts in a row that bring nothing new
    back_off_secs: float = 2.0  # before the second attempt; doubles, at most a minute
    timeout_secs: float = 60.0  # without an answer or a byte


PATIENCE = Patience()
NO_DISK = "free some disk or choose another --dir, then the same command continues"


def fetch(
    urls: Sequence[str],
    path: Path,
    size_bytes: int,
    digest: str = "",
    prefix: bool = False,
    finish: Callable[[Path], str] | None = None,
    show: Callable[[int], None] = lambda have: None,
    patience: Patience = PATIENCE,
) -> list[str]:
    """Gets one file from the first mirror that has it.

    Args:
        urls: mirrors of the same bytes, `http(s)://` or `ftp://`, asked in turn.
        path: final name, in a directory that exists.
        size_bytes: exact length of the result.
        digest: "md5:<hex>" or "sha256:<hex>"; empty: unknown.
        prefix: the result is the first `size_bytes` of a larger file; only HTTP has that.
        finish: called with the checked part before it gets its name; returns "" or what is wrong
            with the content. It must bear being called twice.
        show: told how many bytes there are, again and again.

    Returns:
        [] when `path` is complete, else one line `<url>: <reason>` a mirror.

    Raises:
        BadInput: the file cannot be written.
    """
    wanted = Wanted(size_bytes, digest, prefix)
    part = path.with_name(path.name + ".part")
    if part.is_symlink():  # what comes would be written elsewhere
        _discard(part)
    reasons = []
    for url in urls:
        if reasons:
            tqdm.write(f"{reasons[-1]}; now the next mirror", file=sys.stdout)
        reason = _from_mirror(url, part, wanted, patience, show)
        reason = reason or _wrong_digest(part, digest) or (finish(part) if finish else "")
        if not reason:
            _into_place(part, path)
            return []
        if _size(part) == size_bytes:
            _discard(part)
            reason += "; what came was removed"
        reasons.append(f"{url}: {reason}")
    if _size(part) == 0:
        _discard(part)
    return reasons


def _write_all(f, data: bytes, path: Path) -> None:
    """Writes `data` to the unbuffered `f`; BadInput names `path` if the disk refuses."""
    with whole.telling(path, NO_DISK):
        view = memoryview(data)
        while view:
            view = view[f.write(view) :]


def has_size(path: Path, size_bytes: int) -> bool:
    """Whether a file is there and complete; where one cannot look, it is not."""
    try:
        return path.stat().st_size == size_bytes
    except OSError:
        return False


def _from_mirror(url: str, part: Path, wanted: Wanted, patience: Patience, show) -> str:
    """Asks one mirror until the part is complete ("") or it is time to give up (why)."""
    best, failures = _size(part), 0
    while True:
        refusal = _attempt(url, part, wanted, patience, show)
        if refusal is None:
            return ""
        if refusal.discard:
            _discard(part)
        # an attempt that brought something new does not count against the mirror
        failures = 1 if _size(part) > best else failures + 1
        best = max(best, _size(part))
        if not refusal.again:
            return refusal.reason
        if failures >= patience.tries:
            return f"{refusal.reason}, {failures} times in a row"
        wait = min(patience.back_off_secs * 2 ** (failures - 1), 60)
        tqdm.write(f"{url}: {refusal.reason}; again in {wait:g} s", file=sys.stdout)
        time.sleep(wait)


def _attempt(url: str, part: Path, wanted: Wanted, patience: Patience, show) -> Refusal | None:
    """One connection: appends to the part what comes; None when it is complete."""
    held, version = _held(url, part, wanted)
    if held == wanted.size_bytes:
        return None
    with contextlib.ExitStack() as stack:
        answer = open_url(url, held, version, wanted, patience.timeout_secs, stack)
        if isinstance(answer, Refusal):
            return answer
        if held:
            how = f"continues at byte {held}" if answer.start else "starts again, cannot continue"
            tqdm.write(f"{url}: {how}", file=sys.stdout)
        f = stack.enter_context(_open_part(url, part, answer))
        have = answer.start
        try:
            for chunk in answer.chunks:
                if have == 0 and chunk.lstrip()[:1] == b"<":
                    return Refusal("sent an HTML page in place of the file")
                have += len(chunk)
                if have > wanted.size_bytes:
                    reason = f"sends more than the {wanted.size_bytes} bytes expected"
                    return Refusal(reason, discard=True)
                _write_all(f, chunk, part)
                show(have)
        except TIMEOUTS:
            reason = f"no byte for {patience.timeout_secs:g} s at byte {have}"
            return Refusal(reason, again=True)
        except NETWORK_ERRORS:
            pass  # however it broke, what counts is how far it came
    if have < wanted.size_bytes:
        return Refusal(f"connection cut at byte {have} of {wanted.size_bytes}", again=True)
    return None


def _held(url: str, part: Path, wanted: Wanted) -> tuple[int, str]:
    """How many bytes of the part may be continued from `url`, and the version they must have.

    With a digest any mirror may continue: a wrong mixture is found at the end. Without one only
    the URL it came from, and only if the server then names the same version.
    """
    held = _size(part)
    try:
        came_from, version = json.loads((part.parent / f"{part.name}.json").read_bytes())
        if not re.fullmatch("[!-~][ -~]*", version):  # what a header may hold
            version = ""
    except (OSError, ValueError, TypeError):
        came_from, version = "", ""
    if 0 < held <= wanted.size_bytes:
        if came_from == url and version:
            return held, version
        if wanted.digest:
            return held, ""
    return 0, ""


def _open_part(url: str, part: Path, answer: Body):
    """The part, cut to where the answer starts; unbuffered, so what has come survives a kill."""
    with whole.telling(part, NO_DISK):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        f = os.fdopen(os.open(part, flags, 0o666), "ab", buffering=0)
        f.truncate(answer.start)
        whole.write_text(part.parent / f"{part.name}.json", json.dumps([url, answer.version]))
        return f


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    (part.parent / f"{part.name}.json").unlink(missing_ok=True)


def _wrong_digest(part: Path, digest: str) -> str:
    kind, _, expected = digest.partition(":")
    if not digest:
        return ""
    with part.open("rb") as f:
        got = hashlib.file_digest(f, kind).hexdigest()
    return "" if got == expected else f"{kind} is {got}, expected {expected}"


def _into_place(part: Path, path: Path) -> None:
    with part.open("rb") as f:
        os.fsync(f.fileno())
    os.replace(part, path)
    _discard(part)
