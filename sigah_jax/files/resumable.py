"""A `.npy` file of bytes written from the first row to the last, by runs that may be stopped.

Until it is whole it is called `<name>.partial`. Beside it `<name>.partial.json`, which becomes
`<name>.json`, says what the rows depend on, how many are there and their CRC-32. A run that is
killed at any moment loses what came after the last `save`, a run that resumes verifies what is
there, and a file without its `.json` never has the final name.

Shapes: n rows, W bytes a row.

Not responsible for what the rows are.
"""

import contextlib
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.files import locks, whole

_BLOCK_BYTES = 2**24


class Output(NamedTuple):
    """An output that was begun; `open_output` returns it with its file at the end of the rows."""

    path: Path
    file: BinaryIO
    # {"of": what the rows depend on, "rows": how many are there, "rows_crc32": of their bytes}
    # and what the caller adds
    state: dict


@contextlib.contextmanager
def open_output(
    path: Path, shape: tuple[int, int], of: dict, overwrite: bool, append: bool = False
) -> Iterator[Output]:
    """Begins an output, or resumes one that was stopped; other processes are kept out.

    Args:
        path: the name that `finish` gives it.
        shape: (n, W).
        of: what the rows depend on, for JSON; a partial output is resumed only if all is equal.
        overwrite: an output that exists is replaced by `finish`, and a partial one that is
            damaged or depends on something else is begun anew.
        append: the output will begin with the rows of the one that exists, which `finish` replaces.

    Raises:
        BadInput: it or a `.json` of something else exists and neither `overwrite` nor `append`; a
            partial one is damaged or depends on something else and not `overwrite`; another
            process writes it; the disk is full or refuses, also inside the context.
    """
    busy = f"{path}: another process writes it; wait for it to end"
    with whole.telling(path, whole.RESUMES), locks.held(beside(path, ".partial"), busy) as f:
        if path.is_dir():
            raise BadInput(f"{path}: is a directory; use another --output")
        taken = [path] if path.exists() else []
        if not _is_of(beside(path, ".json"), of):
            taken.append(beside(path, ".json"))
        if taken and not (overwrite or append):
            raise BadInput(f"{taken[0]}: exists; use --overwrite or another --output")
        header = _header(shape)
        state = {"of": of, "rows": 0, "rows_crc32": 0}
        try:
            if os.fstat(f.fileno()).st_size:
                state = _begun(path, f, of, header, shape[1]) or state
        except BadInput:
            if not overwrite:
                raise
        if state["rows"] == 0:
            size = len(header) + shape[0] * shape[1]
            whole.check_room(path.parent, size, "choose another --output")
            whole.write_json(beside(path, ".partial.json"), state)  # first: without it not ours
            f.truncate(0)
            f.write(header)
            f.flush()
        f.truncate(len(header) + state["rows"] * shape[1])
        f.seek(0, os.SEEK_END)
        yield Output(path, f, state)


def append(out: Output, rows: np.ndarray) -> None:
    """Writes the next rows `[b, W] u1`; they count from the next `save` on."""
    out.file.write(np.ascontiguousarray(rows).data)
    crc32 = rows_crc32(rows, out.state["rows_crc32"])
    # in one step: Ctrl-C may come at any moment, and the state is saved then
    out.state.update(rows=out.state["rows"] + len(rows), rows_crc32=crc32)


def save(out: Output) -> None:
    """Keeps what has been written, whatever happens now."""
    out.file.flush()
    os.fsync(out.file.fileno())
    whole.write_json(beside(out.path, ".partial.json"), out.state)


def finish(out: Output, append: bool = False) -> None:
    """Gives the saved file its name; after a kill in between the same command ends it.

    Args:
        append: the state is about the old rows too, and they are there until the file replaces
            them. Otherwise they never lie beside it.
    """
    if not append:
        out.path.unlink(missing_ok=True)
    whole.write_json(beside(out.path, ".json"), out.state)
    os.replace(beside(out.path, ".partial"), out.path)
    beside(out.path, ".partial.json").unlink(missing_ok=True)


def ended(path: Path) -> dict | None:
    """The state of an output whose run was killed just before the end of `finish`, else None.

    Nothing but the removal of its partial state was missing, which is made up for.
    """
    partial, states = beside(path, ".partial"), []
    for end in (".json", ".partial.json"):
        with contextlib.suppress(OSError, BadInput):
            states.append(whole.read_json(beside(path, end), ""))
    if not path.is_file() or len(states) < 2 or states[0] != states[1]:
        return None
    if partial.exists() and partial.stat().st_size:  # `finish` has not renamed it yet
        return None
    beside(path, ".partial.json").unlink(missing_ok=True)
    return states[0]


def discard(out: Output) -> None:
    """Removes what has been written, if it is there."""
    beside(out.path, ".partial").unlink(missing_ok=True)
    beside(out.path, ".partial.json").unlink(missing_ok=True)


def beside(path: Path, end: str) -> Path:
    """The file of that name with `end` after it."""
    return path.with_name(path.name + end)


def rows_crc32(rows: np.ndarray, before: int = 0) -> int:
    """The CRC-32 of rows `[b, W] u1` that follow those whose CRC-32 is `before`."""
    return zlib.crc32(np.ascontiguousarray(rows).data, before)


def _is_of(state_path: Path, of: dict) -> bool:
    """Whether a state is of that, or none is there."""
    try:
        return whole.read_json(state_path, "").get("of") == of
    except FileNotFoundError:
        return True
    except BadInput:
        return False


def _header(shape: tuple[int, int]) -> bytes:
    """The first bytes of a `.npy` file of `shape` uint8."""
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def _begun(path: Path, f: BinaryIO, of: dict, header: bytes, width: int) -> dict | None:
    """The state of the partial file `f`, None without rows; BadInput if it cannot be resumed."""
    state_path = beside(path, ".partial.json")
    try:
        state = whole.read_json(state_path, "")
        theirs, rows, crc32 = dict(state["of"]), state["rows"], state["rows_crc32"]
        if type(rows) is not int:
            raise ValueError(rows)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput(
            f"{path}.partial: {state_path.name}, which says what it holds, is missing, damaged or "
            "of an earlier version; remove both, or use --overwrite"
        ) from e
    if not rows:
        return None  # nothing is lost, whatever it was begun with
    for field in of | theirs:
        old, ours = theirs.get(field), of.get(field)
        if old != ours:
            raise BadInput(
                f"{path}.partial: was begun with another {field} ({old}, now {ours}); give "
                "the command that it was begun with, or start anew with --overwrite"
            )
    if _rows_crc32_in(f, header, rows * width) != crc32:
        raise BadInput(
            f"{path}.partial: its first {rows} rows are not those that were written, the file is "
            "damaged; start anew with --overwrite"
        )
    return state


def _rows_crc32_in(f: BinaryIO, header: bytes, size: int) -> int | None:
    """The CRC-32 of `size` bytes after the header, None if the header or some are not there."""
    f.seek(0)
    if f.read(len(header)) != header:
        return None
    crc32 = 0
    while size:
        block = f.read(min(size, _BLOCK_BYTES))
        if not block:
            return None
        crc32, size = zlib.crc32(block, crc32), size - len(block)
    return crc32
