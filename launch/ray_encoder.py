"""What an actor of `encode_ray` does: a fragment of vectors becomes a file of codes.

Shapes: r rows of a fragment, W packed bytes.

Not responsible for how a row becomes a code (`hasher`) nor for which fragments there are.
"""

import itertools
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import jax
import numpy as np

from launch.ray_inputs import Fragment, open_source
from sigah_jax.encoder import hasher
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.formats.vectors import Vectors
from sigah_jax.retrieval import codes, metric
from sigah_jax.retrieval.bad_rows import why_bad

LONGEST = b"longest"  # in a file of codes: the length of its longest row, if the metric asks for it
_LOST_WORKERS = 4  # on one fragment; one that kills every worker must end


class Options(NamedTuple):
    """The flags of the command."""

    workdir: Path
    input: list[str]
    column: str
    output: Path
    checkpoint: str | int
    skip_bad: bool
    fragment_rows: int
    address: str
    concurrency: int | None
    num_cpus: int
    num_gpus: int


def fragment_codes(
    h: hasher.Hasher, v: Vectors, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """(codes `[r, W] u1`, good `[r] bool`, length of the longest) of rows `start` to `stop`.

    The blocks are those of the whole file, with zeros for the rows outside: a row's place in a
    block may round a projection near zero to the other side, and so flip a bit. The length is 0
    where the metric does not ask for it.
    """
    longest = 0.0

    def read(i: int, j: int) -> np.ndarray:
        nonlocal longest
        low, high = max(i, start), min(j, stop)
        x = np.zeros((j - i, v.shape[1]), v.dtype)
        x[low - i : high - i] = v.read(low, high)
        if h.metric.added:
            longest = max(longest, metric.longest(x))
        return x

    if stop > v.shape[0]:
        raise BadInput(f"{v.path}: got shorter since it was listed; start again")
    packed = np.empty((stop - start, codes.packed_bytes(h.bits)), np.uint8)
    good = np.empty(stop - start, bool)
    first, last = start - start % h.call_rows, min(stop + -stop % h.call_rows, v.shape[0])
    for at, block, fine in h.encode_blocks(read, first, last):
        low, high = max(at, start), min(at + len(block), stop)
        packed[low - start : high - start] = block[low - at : high - at]
        good[low - start : high - start] = fine[low - at : high - at]
    return packed, good, longest


def _write_codes(
    f: BinaryIO, tables: Iterator, packed: np.ndarray, good: np.ndarray, longest: float
) -> None:
    """Writes tables of r rows in all, with a column `code` that is null in bad rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = next(tables)
    kind, at = pa.field("code", pa.binary(packed.shape[1])), 0
    schema = first.schema.append(kind)
    if longest:
        schema = schema.with_metadata((schema.metadata or {}) | {LONGEST: str(longest)})
    with pq.ParquetWriter(f, schema, write_page_checksum=True) as writer:
        for table in itertools.chain([first], tables):
            rows = slice(at, at + table.num_rows)
            valid = pa.py_buffer(np.packbits(good[rows], bitorder="little"))
            buffers = [valid, pa.py_buffer(packed[rows])]
            code = pa.FixedSizeBinaryArray.from_buffers(kind.type, table.num_rows, buffers)
            writer.write_table(table.append_column(kind, code))
            at = rows.stop


class Encoder:
    """Encodes fragments, one in each call. A class, because an actor of Ray Data keeps one."""

    def __init__(self, options: Options, encoder: bytes):
        self.options = options
        self.encoder = encoder  # returned by `hasher.to_bytes`: all actors have the same
        self.h = None

    def __call__(self, row: dict) -> dict:
        """Writes the file of a `Fragment`.

        Returns:
            {"rows", "bad": rows without a code, "longest": as in `fragment_codes`, "error" or ""}.
        """
        fragment, bad, longest, error = Fragment(**row), 0, 0.0, ""
        try:
            self.h = self.h or self.load()  # not in `__init__`, whose errors Ray tells in pages
            bad, longest = self.write(fragment)
        except BadInput as e:
            error = str(e)
        rows = fragment.stop - fragment.start
        return {"rows": rows, "bad": bad, "longest": longest, "error": error}

    def load(self) -> hasher.Hasher:
        """The hasher, on the accelerators or the cores of this actor."""
        os.environ["NPROC"] = str(self.options.num_cpus)  # the threads of XLA on CPU
        if not self.options.num_gpus:
            jax.config.update("jax_platforms", "cpu")
        elif jax.default_backend() == "cpu":
            raise BadInput(
                f"--num_gpus={self.options.num_gpus}: JAX finds no accelerator on "
                f"{socket.gethostname()}; install sigah_jax[cuda] there, or leave the flag out"
            )
        return hasher.unpacked(self.encoder)

    def write(self, fragment: Fragment) -> tuple[int, float]:
        """Writes the file of a fragment; returns its number of bad rows and its longest length.

        Raises:
            BadInput: a bad row without `skip_bad`, an input that changed since it was planned, an
                input or a disk that refuses, a fragment that killed too many workers; no file is
                there then.
        """
        path = Path(self.options.output, fragment.name)
        lost = list(path.parent.glob(f"_{path.name}.*.partial"))
        if len(lost) >= _LOST_WORKERS:
            raise BadInput(
                f"{path}: {len(lost)} workers died on it, of too little memory perhaps; use fewer "
                "--fragment_rows in a new --output, or more --num_cpus"
            )
        partial = path.with_name(f"_{path.name}.{whole.this_thread()}.partial")
        source = open_source(fragment, self.options.column, self.h.d)
        v = source.vectors
        try:
            with whole.telling(path, whole.RESUMES), whole.create(partial) as f:
                packed, good, longest = fragment_codes(self.h, v, fragment.start, fragment.stop)
                if not (self.options.skip_bad or good.all()):
                    row = fragment.start + int(good.argmin())
                    reason = why_bad(v.read(row, row + 1)[0], row)
                    raise BadInput(f"{v.path}: {reason}, or use --skip_bad")
                others = source.others(fragment.start, fragment.stop)
                _write_codes(f, others, packed, good, longest)
                source.check(json.loads(fragment.facts))
                f.flush()
                os.fsync(f.fileno())
                os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        for left in lost:
            left.unlink(missing_ok=True)
        return int((~good).sum()), longest
