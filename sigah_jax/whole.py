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


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for bytes, which gets its name once all is on the disk.

    After an error, also one of the disk, nothing new is there and an older file of that name
    stays as it was.
    """
    partial = path.with_name(f"{path.name}.partial-{this_process()}")
    f = partial.open("wb")
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
    """Writes a text file, as UTF-8, whole or not at all."""
    with writing(path) as f:
        f.write(text.encode())
