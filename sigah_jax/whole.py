"""Files that appear whole or not at all.

Not responsible for outputs that go on after a stop: `resumable`.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def this_process() -> str:
    """`<host>-<process>`, for names of temporary files: hosts share a disk, and process numbers."""
    return f"{socket.gethostname()}-{os.getpid()}"


def create(path: Path, buffering: int = -1) -> BinaryIO:
    """Opens a new file for bytes in place of whatever has that name.

    A symbolic link is replaced and never followed, so that one which someone has left there
    cannot lead to another file.
    """
    path.unlink(missing_ok=True)
    return path.open("xb", buffering)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for bytes, which gets its name once all is on the disk.

    After an error, also one of the disk, nothing new is there and an older file of that name
    stays as it was.
    """
    partial = path.with_name(f"{path.name}.partial-{this_process()}")
    f = create(partial)
    try:
        yield f
        f.flush()
        os.fsync(f.fileno())
        f.close()
        os.replace(partial, path)
    finally:
        # on a full disk closing fails a second time, and would hide the first reason
        with contextlib.suppress(OSError):
            f.close()
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, as UTF-8, whole or not at all.

    Bytes of a file name that are not UTF-8 are written as they are.
    """
    with writing(path) as f:
        f.write(text.encode(errors="surrogateescape"))
