"""GIST1M, Deep1M and SIFT1M from whatever files a person has of them.

A data set is a directory `<data directory>/<name>/` with the files of one layout: texmex fvecs,
big-ann fbin or ann-benchmarks HDF5. The files of official size are taken as they are; of the
billion-scale files of Deep1B the first rows are.

Shapes: n rows, d columns.

Not responsible for getting files (`download`) nor for reading their formats (`vectors`).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.formats.vectors import as_array, open_vectors

STAND_IN = "STAND_IN.txt"  # `synthetic` leaves it beside its files


class Part(NamedTuple):
    """One part of a data set in one file."""

    file: str
    dataset: str = ""  # of an HDF5 file
    first_rows: bool = False  # the file may hold more rows than the part


class Layout(NamedTuple):
    """The files of one way to keep a data set."""

    base: Part
    queries: Part
    learn: Part | None  # None: this layout has no learn split


class Benchmark(NamedTuple):
    """Official sizes, and the layouts in order of preference."""

    d: int
    base_rows: int
    query_rows: int
    learn_rows: int
    layouts: tuple[Layout, ...]


def _layouts(fvecs: str, hdf5: str) -> tuple[Layout, ...]:
    """The three layouts: texmex names `<fvecs>_base.fvecs` …, plain fbin names, one HDF5 file."""
    return (
        Layout(*(Part(f"{fvecs}_{part}.fvecs") for part in ("base", "query", "learn"))),
        Layout(*(Part(f"{part}.fbin") for part in ("base", "query", "learn"))),
        Layout(Part(hdf5, "train"), Part(hdf5, "test"), None),
    )


BENCHMARKS = {
    "gist1m": Benchmark(
        960, 1_000_000, 1_000, 500_000, _layouts("gist", "gist-960-euclidean.hdf5")
    ),
    "sift1m": Benchmark(
        128, 1_000_000, 10_000, 100_000, _layouts("sift", "sift-128-euclidean.hdf5")
    ),
    "deep1m": Benchmark(
        96,
        1_000_000,
        10_000,
        500_000,
        (
            Layout(
                Part("base.1M.fbin"), Part("query.public.10K.fbin"), Part("learn.500K.fbin")
            ),  # `download` makes these
            Layout(
                Part("base.1B.fbin", first_rows=True),
                Part("query.public.10K.fbin"),
                Part("learn.350M.fbin", first_rows=True),
            ),
            *_layouts("deep", "deep1m.hdf5"),
        ),
    ),
}


class Arrays(NamedTuple):
    """The parts of a data set as float32 arrays, memory-mapped where the format allows."""

    base: np.ndarray  # [nb, d]
    queries: np.ndarray  # [nq, d]
    learn: np.ndarray | None  # [nl, d]
    origin: str  # what a person should know of where they come from


def load_benchmark(name: str, root: Path, command: str) -> Arrays:
    """The data set `name` from `root/name/`.

    Args:
        command: the command line that gets it, for the message.

    Raises:
        BadInput: no layout is complete, or a file has another size than the official one.
    """
    benchmark, directory = BENCHMARKS[name], root / name
    layout = _find(name, benchmark, directory, command)
    base = _read(directory, layout.base, benchmark.base_rows, benchmark.d)
    queries = _read(directory, layout.queries, benchmark.query_rows, benchmark.d)
    learn = layout.learn and _read(directory, layout.learn, benchmark.learn_rows, benchmark.d)
    origin = f"{directory / layout.base.file}"
    if (directory / STAND_IN).exists():
        origin += " (synthetic stand-in, not the real data)"
    if learn is None:
        origin += ", no learn split there: trained on base rows"
    return Arrays(base, queries, learn, origin)


def _find(name: str, benchmark: Benchmark, directory: Path, command: str) -> Layout:
    """The first layout whose files all exist; otherwise says what is missing."""
    missing = []
    for layout in benchmark.layouts:
        files = dict.fromkeys(part.file for part in layout if part)
        absent = [file for file in files if not (directory / file).exists()]
        if not absent:
            return layout
        missing.append((len(absent) - len(files), absent))
    have, absent = min(missing, key=lambda m: m[0])  # the first, or the one most complete
    wanted = "is missing" if have < 0 else "not there"
    raise BadInput(
        f"{name}: {', '.join(str(directory / file) for file in absent)} {wanted}; get it: "
        f"{command}; or say with --config.data.dir or SIGAH_DATA which directory holds {name}/"
    )


def _read(directory: Path, part: Part, rows: int, d: int) -> np.ndarray:
    v = open_vectors(directory / part.file, part.dataset)
    more = part.first_rows and v.shape[0] > rows
    if v.shape != (rows, d) and not (more and v.shape[1] == d):
        raise BadInput(
            f"{v.path}: {v.shape[0]} rows of {v.shape[1]}, expected {rows} of {d}; get it again"
        )
    if more:
        return np.asarray(v.read(0, rows), np.float32)
    return np.asarray(as_array(v), np.float32)
