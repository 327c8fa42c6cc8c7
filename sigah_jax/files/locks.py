"""Locks on files, which end with the process that holds them.

The only module that uses `flock`. Not responsible for what a lock protects.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from sigah_jax.errors import BadInput


def open_file(path: Path) -> BinaryIO:
    """Opens a file to be locked, and makes it if it is missing.

    Its content stays, and a symbolic link is refused (OSError), so that a link that was
    left there cannot lead to another file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o666), "r+b")


@contextlib.contextmanager
def held(path: Path, busy: str = "") -> Iterator[BinaryIO]:
    """Opens a file and holds its lock to the end, when the file is removed if nothing is in it.

    Args:
        busy: the BadInput if another process has the lock; "": it is waited for.
    """
    while True:
        f, ours = open_file(path), True
        try:
            if ours := take(f, path, wait=not busy):
                yield f
                return
        finally:
            if ours and not os.fstat(f.fileno()).st_size:
                path.unlink(missing_ok=True)
            # on a full disk closing fails a second time, and would hide the first reason
            with contextlib.suppress(OSError):
                f.close()
        if busy:
            raise BadInput(busy)


def take(f: IO, path: Path, wait: bool = False) -> bool:
    """Locks an open file until it is closed.

    Args:
        f: the file, opened for writing: NFS needs that.
        path: where it was opened.
        wait: whether to wait for a process that holds the lock.

    Returns:
        Whether we hold the lock on the file that `path` names. False if another process holds it,
        or if the file was renamed or removed before we had the lock.

    Raises:
        BadInput: the file system has no locks.
    """
    try:
        fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as e:  # ENOLCK, ENOSYS or EOPNOTSUPP
        raise BadInput(
            f"{path}: cannot be locked ({e.strerror}), so two processes could write there at once; "
            "use a directory on a file system that supports locks (flock)"
        ) from e
    try:
        return os.path.samestat(os.fstat(f.fileno()), path.stat())
    except FileNotFoundError:
        return False
