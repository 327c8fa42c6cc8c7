"""Files that appear whole or not at all, JSON files that know whether they still are, full disks.

Not responsible for outputs that resume after a stop: `resumable`.
"""

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sigah_jax.errors import BadInput
from sigah_jax.process import interrupts

_DIGEST = "blake2b"  # the field of a JSON file that holds the hash of its other fields

# a remedy, of `telling`
RESUMES = "free space or check its directory, then the same command resumes where it stopped"

_temporary: set[Path] = set()  # files of `create` that have not got their names


def this_thread() -> str:
    """`<host>-<thread>-<process>`, for names of temporary files.

    Hosts that share a disk have equal process numbers, and threads of a process may write one
    file.
    """
    return f"{socket.gethostname()}-{threading.get_native_id()}-{os.getpid()}"


def create(path: Path) -> BinaryIO:
    """Opens a new file for bytes in place of whatever has that name.

    A symbolic link is replaced and never followed, so that one that was left there
    cannot lead to another file.
    """
    path.unlink(missing_ok=True)
    _temporary.add(path)
    return path.open("xb")


def _abandon(_: int) -> None:
    for path in list(_temporary):
        path.unlink(missing_ok=True)


interrupts.before_leaving.append(_abandon)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for bytes, which gets its name once all is on the disk.

    After an error, also one of the disk, nothing new is there and an older file of that name
    stays as it was. What dead processes of this host left of the same file is removed.

    Raises:
        OSError: with the path as its `filename`, also where a write failed.
    """
    partial = path.with_name(f"{path.name}.partial-{this_thread()}")
    with naming(path):
        ours = f"{path.name}.partial-{socket.gethostname()}-"
        for left in path.parent.glob(f"{glob.escape(ours)}*"):
            if _is_dead(left.name.removeprefix(ours)):
                left.unlink(missing_ok=True)
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
            _temporary.discard(partial)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an OSError that does not, as that of a write: a disk may be full."""
    try:
        yield
    except OSError as e:
        if e.errno is not None:  # without one there is no place for a name
            e.filename = e.filename or str(path)
        raise


@contextlib.contextmanager
def telling(
    path: Path, remedy: str, cannot: str = "cannot be written", flag: str = ""
) -> Iterator[None]:
    """Turns what the disk says of a path into BadInput: `<path>: cannot be written (…); <remedy>`.

    `flag`, as "--output=", stands before the path.

    An error of a file that is neither beside the path, in it nor above it stays as it is.
    """
    try:
        yield
    except OSError as e:
        named = Path(os.fsdecode(e.filename or path))
        near = path.parent in named.parents or named in path.parents
        if e.errno is None or not near:
            raise
        raise BadInput(f"{flag}{path}: {cannot} ({e.strerror}); {remedy}") from e


def check_on_disk(path: Path) -> None:
    """BadInput for the address of a bucket, `gs://mine/runs`: as a path it is a directory `gs:`."""
    if path.parts and path.parts[0].endswith(":"):
        raise BadInput(
            f"{path}: {path.parts[0]}// is not on a disk; mount the bucket, name its directory"
        )


def check_room(path: Path, wanted_bytes: int, remedy: str) -> None:
    """BadInput if the disk of a directory that exists has no room for so many bytes."""
    free = shutil.disk_usage(path).free
    if wanted_bytes > free:
        from tqdm import tqdm

        wanted, left = (tqdm.format_sizeof(size, "B") for size in (wanted_bytes, free))
        raise BadInput(f"{path}: {wanted} are needed and {left} are free; free some, or {remedy}")


def write_text(path: Path, text: str) -> None:
    """Writes a text file, as UTF-8, whole or not at all.

    Bytes of a file name that are not UTF-8 are written as they are.
    """
    with writing(path) as f:
        f.write(text.encode(errors="surrogateescape"))


def write_json(path: Path, value: dict) -> None:
    """Writes a JSON object, and in its last field the hash of the others."""
    write_text(path, dumps(value, indent=1) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """The object that `write_json` wrote; without its hash it is taken as it is.

    Args:
        remedy: what to do about a damaged file, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        BadInput: it is not a readable file, not a JSON object, or its hash is another.
    """
    try:
        return loads(path.read_bytes(), str(path), remedy)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise BadInput(f"{path}: cannot be read ({e.strerror}); check its permissions") from e


def dumps(value: dict, indent: int | None = None) -> str:
    """A JSON object as text, and in its last field the hash of the others."""
    return json.dumps(value | {_DIGEST: _digest_of(value)}, indent=indent)


def loads(text: bytes, where: str, remedy: str) -> dict:
    """The object that `dumps` wrote; BadInput, beginning with `where`, if the text is damaged."""
    try:
        value = json.loads(text)
    except ValueError as e:
        raise BadInput(f"{where}: damaged (it is not JSON); {remedy}") from e
    if not isinstance(value, dict):
        raise BadInput(f"{where}: damaged (it is not a JSON object); {remedy}")
    digest = value.pop(_DIGEST, None)
    if digest not in (None, _digest_of(value)):
        raise BadInput(f"{where}: damaged (its content does not fit its hash); {remedy}")
    return value


def _digest_of(value: dict) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _is_dead(maker: str) -> bool:
    """Whether the process of this host that made a file, `<thread>-<process>`, has ended.

    False if it is not one of this host: of hosts `a` and `a-2`, a's names begin as a-2's do.
    """
    if not re.fullmatch("[0-9]+-[0-9]+", maker):
        return False
    try:
        os.kill(int(maker.partition("-")[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass  # it lives
    return False
