"""A `.npy` file of bytes written from the first row to the last, by runs that may be stopped.

Until it is whole it is called `<name>.partial`, beside a `<name>.partial.json` that says of what
it is and how far, and stays as `<name>.json`. A run that is killed at any moment loses what came
after the last `save`, and a file without what it is of never has the final name.

Shapes: n rows, W bytes a row.

Not responsible for what the rows are.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from sigah_jax import locks, whole
from sigah_jax.errors import BadInput


class Output(NamedTuple):
    """An output that was begun: `open_output` gives it, its file at the end of row `rows`."""

    path: Path
    file: BinaryIO
    state: dict  # {"of": what it is of, "rows": how many are there} and what the caller adds


@contextlib.contextmanager
def open_output(path: Path, shape: tuple[int, int], of: dict, overwrite: bool) -> Iterator[Output]:
    """Begins an output, or goes on with one that was stopped; other processes are kept out.

    Args:
        path: the name that it gets by `finish`.
        shape: (n, W).
        of: what the rows depend on, for JSON; a partial output goes on only if all is equal.
        overwrite: an output that exists is replaced by `finish`, and a partial one that is of
            something else is begun anew.

    Raises:
        BadInput: it or a `.json` of something else exists, or a partial one of something else,
            and not `overwrite`; another process writes it; a disk that is full or refuses, also
            inside the context.
    """
    with _writing(path), _locked(path) as f:
        taken = [path] if path.exists() else []
        if not _is_of(beside(path, ".json"), of):
            taken.append(beside(path, ".json"))
        if taken and not overwrite:
            raise BadInput(f"{taken[0]}: exists; use --overwrite or another --output")
        header = _header(shape)
        state = _read_state(path, f, of, len(header), shape[1], overwrite)
        if state["rows"] == 0:
            _check_free(path, len(header) + shape[0] * shape[1])
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
    out.state["rows"] += len(rows)


def save(out: Output) -> None:
    """Keeps what has been written, whatever happens now."""
    out.file.flush()
    os.fsync(out.file.fileno())
    whole.write_json(beside(out.path, ".partial.json"), out.state)


def finish(out: Output) -> None:
    """Gives the saved file its name; after a kill in between the same command ends it."""
    out.path.unlink(missing_ok=True)  # old rows never lie beside the new state
    whole.write_json(beside(out.path, ".json"), out.state)
    os.replace(beside(out.path, ".partial"), out.path)
    beside(out.path, ".partial.json").unlink()


def discard(out: Output) -> None:
    """Removes what has been written, if it is there."""
    beside(out.path, ".partial").unlink(missing_ok=True)
    beside(out.path, ".partial.json").unlink(missing_ok=True)


def beside(path: Path, end: str) -> Path:
    """The file of that name with `end` after it."""
    return path.with_name(path.name + end)


def _is_of(state_path: Path, of: dict) -> bool:
    """Whether a state is of that, or none is there."""
    try:
        return json.loads(state_path.read_text())["of"] == of
    except FileNotFoundError:
        return True
    except (ValueError, KeyError, TypeError):
        return False


def _header(shape: tuple[int, int]) -> bytes:
    """The first bytes of a `.npy` file of `shape` uint8."""
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def _read_state(
    path: Path, f: BinaryIO, of: dict, header_bytes: int, width: int, overwrite: bool
) -> dict:
    """How far the partial file `f` is; rows 0 if it has to be begun, or holds none yet."""
    size, begin = os.fstat(f.fileno()).st_size, {"of": of, "rows": 0}
    if size == 0:
        return begin
    state_path = beside(path, ".partial.json")
    try:
        state = json.loads(state_path.read_text())
        theirs, rows = state["of"], state["rows"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        if overwrite:
            return begin
        raise BadInput(
            f"{path}.partial: no {state_path.name} says of what it is; remove it, or use "
            "--overwrite"
        ) from e
    if not rows:
        return begin  # nothing is lost
    differ = [field for field in of if theirs.get(field) != of[field]]
    if differ and not overwrite:
        field = differ[0]
        raise BadInput(
            f"{path}.partial: was begun with another {field} ({theirs.get(field)}, now "
            f"{of[field]}); give the command that it was begun with, or start anew with "
            "--overwrite"
        )
    # after a kill of a run that began anew the state may be there without its rows
    return begin if differ or size < header_bytes + rows * width else state


def _check_free(path: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed_bytes > free:
        raise BadInput(
            f"{path}: {tqdm.format_sizeof(needed_bytes, 'B')} are needed and "
            f"{tqdm.format_sizeof(free, 'B')} are free; free some, or choose another --output"
        )


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what the disk says into BadInput."""
    try:
        yield
    except OSError as e:
        raise BadInput(
            f"{path}: cannot be written ({e.strerror}); free space or check its directory, then "
            "the same command goes on where it stopped"
        ) from e


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The partial file, made if missing, with a lock; removed if nothing is in it at the end."""
    partial = beside(path, ".partial")
    f, ours = locks.open_file(partial), True
    try:
        ours = locks.take(f, partial)
        if not ours:
            raise BadInput(f"{path}: another process writes it; wait for it to end")
        yield f
    finally:
        if ours and os.fstat(f.fileno()).st_size == 0:
            partial.unlink(missing_ok=True)
        # on a full disk closing fails a second time, and would hide the first reason
        with contextlib.suppress(OSError):
            f.close()
