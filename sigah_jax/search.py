"""Searches a file of codes, exactly, and re-ranks by the original vectors if they are given.

    python -m sigah_jax.search --codes=codes.npy --queries=codes_q.npy --k=100 --output=near.npz
    python -m sigah_jax.search --workdir=runs/… --codes=codes.npy --queries=vectors_q.npy --k=100 \
        --rerank=vectors.npy --oversample=10 --output=near.npz
    python -m sigah_jax.search --workdir=runs/… --codes=codes.npy --queries=vectors_q.npy \
        --radius=0.6 --recall=.95 --output=near.npz

Queries are packed codes, of `encode --queries`, of `encode --queries=both` for `--by=both`, or with
--workdir vectors, which find more: their two codes rank all codes, the --candidates nearest are
ranked by ‖z - ẑ‖², see `Hasher.features`, and of these the nearest by the vectors of --rerank, if
they are given. `--by` ranks all codes by something else: both codes of a query, its own alone, as
for packed codes, or its real projections.

`--only=ids.npy` searches within a subset, exactly, at the cost of so many codes: the file holds row
numbers, or a boolean for each code. Of deleted rows the boolean is False.

`--radius` in place of `--k` finds all rows that probably lie within it: a Euclidean distance, of
cosine 1 - cos, of ip the least inner product. The encoder knows by its validation queries how near
a synthetic feature must be so that the share `--recall` of these rows is found. `--rerank` leaves
those that are within. See `encoder.radius`.

What `encode` left beside the codes, `codes.npy.json`, must name the encoder of the queries; where
it is missing, on either side, a line says that this was not checked. Rows that it lists as bad are
no neighbours and no candidates; queries that are bad are refused.

The output is an `.npz` file of `ids [Q, k] int64`, row numbers of the codes, and `distances
[Q, k]`: float32, ‖z - ẑ‖², the weighted Hamming distance of projections, or, if re-ranked, that of
the encoder's metric, the squared Euclidean distance, 1 - cos or -q·x; int32 of codes, the bits that
differ, those of the query's own code counted twice where both rank. Each row is sorted by
(distance, id). With `--radius` it holds `lims [Q + 1] int64`, `ids [t] int64` and `distances [t]
float32`: the rows of query i are those from lims[i] to lims[i + 1], nearest first, at ‖z - ẑ‖², or
if re-ranked at what the radius is compared with, the Euclidean distance, 1 - cos or q·x.

`sigah_jax.search(h, queries, codes, k)` from Python is `encoder.searching.search`, also where this
module was imported and has that name.

Shapes: Q queries, n codes, W packed bytes, d columns, k neighbours, t rows of all queries.

Not responsible for how neighbours are found (`retrieval`) nor for formats (`formats.vectors`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import contextlib
import inspect
import os
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sigah_jax.data.datasets import read_file
from sigah_jax.devices import parallel
from sigah_jax.encoder import code_facts, radius, searching
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.errors import BadInput, command
from sigah_jax.files import resumable, whole
from sigah_jax.files.regular import open_regular
from sigah_jax.formats.containers import reading_as
from sigah_jax.retrieval import both, codes, gaps, hamming
from sigah_jax.run import loading

BY = {
    "synthetic": "by synthetic features",
    "both": "by both codes of the query",
    "hamming": "by Hamming distance",
    "projection": "by projections of the query",
}
SAMPLE_ROWS = 16  # encoded to see whether codes and vectors belong together
ENDING_SECS = 1  # more than `encode` needs between replacing its facts and its codes
MOST_WRONG = 0.05  # of their bits: another device rounds otherwise, another file differs in half


def search(args) -> str:
    """Runs the command of these flags and writes its output; returns a line for people.

    Raises:
        BadInput: flags or files that do not fit, codes of different encoders, a run directory
            that cannot be used, an output that exists or cannot be written.
    """
    _check_flags(args)
    cb, facts = _read_codes("--codes", args.codes)
    if facts and facts["rows_are"] not in ("base", "both"):
        raise BadInput(
            f"--codes={args.codes}: are codes of queries; encode the base without --queries"
        )
    bad = facts["bad"] if facts else np.empty(0, np.int64)
    subset = _read_subset(args.only, len(cb), bad) if args.only else None
    rows = len(cb) - len(bad) if subset is None else len(subset)
    if args.k is not None and not 1 <= args.k <= rows:
        beside = f" beside {len(bad)} bad rows" if len(bad) else ""
        holds = f"{args.codes} holds {rows} codes{beside}"
        if subset is not None:
            holds = f"--only={args.only} leaves {rows} codes of {args.codes}"
        choose = f"choose 1 to {rows}" if rows else "there is nothing to find"
        raise BadInput(f"--k={args.k}: {holds}; {choose}")
    h = base = None
    if args.workdir:
        h = loading.load(args.workdir, args.checkpoint)
        note = _check_encoder(args, facts, h.describe())
        queries = read_file(args.queries)
        base = read_file(args.rerank) if args.rerank else None
        _check_vectors(args, h, cb, facts, bad, subset, queries, base)
    else:
        queries, of_queries = _read_codes("--queries", args.queries)
        if of_queries and of_queries["rows_are"] == "base":
            raise BadInput(
                f"--queries={args.queries}: are codes of a base; encode queries with --queries, or "
                "give their vectors and --workdir"
            )
        note = _check_encoder(args, facts, of_queries)
        if of_queries and len(of_queries["bad"]):
            raise BadInput(
                f"--queries={args.queries}: row {of_queries['bad'][0]} was bad and has no code; "
                "leave such rows out of the file before it is encoded"
            )
        wanted = (1 + (args.by == "both")) * cb.shape[1]
        if queries.shape[1] != wanted:
            raise BadInput(
                f"--queries={args.queries}: codes of {queries.shape[1]} bytes, --by={args.by} of "
                f"codes of {cb.shape[1]} takes {wanted}; encode the queries by the run of --codes, "
                "with --queries, or with --queries=both for --by=both"
            )
    start = time.monotonic()
    if args.k is None:
        arrays, what, how = _find_within(args, h, queries, cb, bad, subset, base)
    else:
        d, ids, how = _find(args, h, queries, cb, bad, subset, base)
        arrays, what = {"ids": ids, "distances": d}, f"{args.k} neighbours"
    seconds = time.monotonic() - start
    write_npz(args.output, arrays)
    among = f"{rows}" if subset is None else f"{rows} of {len(cb)}"
    return (
        f"{args.output}: {what} of {len(queries)} queries among {among} codes of "
        f"{cb.shape[1]} bytes, {how}, {seconds:.2f} s{note}"
    )


def _find(
    args,
    h: Hasher | None,
    queries: np.ndarray,
    cb: np.ndarray,
    bad: np.ndarray,
    subset: np.ndarray | None,
    base: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Distances and ids of the way that is asked for, `[Q, k]` each, and what it is called.

    Args:
        h: None if queries are codes.
        bad: `[b] i64`, rising, rows of cb that are not there.
        subset: `[s] i64`, rising, the rows to search in; None: all that are there.
        base: None without re-ranking.
    """
    ranked = BY[args.by]
    if h is None:
        engine, way = parallel.engine(args.engine), hamming.search
        if args.by == "both":
            queries, way = queries.reshape(len(queries), 2, -1), both.search
        find = lambda packed, k: way(queries, packed, k, engine)  # noqa: E731
        return *gaps.search(find, cb, bad, args.k, subset), ranked
    options = {"by": args.by, "rerank": base, "missing": bad, "only": subset}
    options |= {"candidates": args.candidates, "oversample": args.oversample}
    with _naming_files(args):
        found = searching.search(h, queries, cb, args.k, engine=args.engine, **options)
    rows = len(cb) - len(bad) if subset is None else len(subset)
    last = args.k
    if base is not None:
        last = min(rows, args.k * args.oversample)
        ranked = f"{last} nearest {ranked}, re-ranked by {args.rerank}"
    if args.by == "synthetic":
        ranked = f"{min(rows, max(args.candidates, last))} nearest {BY['both']}, {ranked}"
    return *found, ranked


def _find_within(
    args,
    h: Hasher,
    queries: np.ndarray,
    cb: np.ndarray,
    bad: np.ndarray,
    subset: np.ndarray | None,
    base: np.ndarray | None,
) -> tuple[dict[str, np.ndarray], str, str]:
    """As `_find` all rows within `--radius`: the output's arrays, how many, how they were found."""
    options = {"recall": args.recall, "rerank": base, "missing": bad, "only": subset}
    with _naming_files(args):
        found = radius.range_search(h, queries, cb, args.radius, **options)
    arrays = {"lims": found.lims, "ids": found.ids, "distances": found.distances}
    each = len(found.ids) / max(1, len(queries))
    checked = f", of which {args.rerank} left those within it" if args.rerank else ""
    return (
        arrays,
        f"{each:.1f} rows within {args.radius:g} of each",
        (
            f"{BY['synthetic']}{checked} (validation queries found {found.recall:.1%} of the rows "
            f"within it so, {found.precision:.1%} of what they found lay within it)"
        ),
    )


@contextlib.contextmanager
def _naming_files(args) -> Iterator[None]:
    """Puts the flag and the file before the reason why an argument of a search cannot be used."""
    try:
        yield
    except BadInput as e:
        argument, _, why = str(e).partition(": ")
        given = {"queries": args.queries, "rerank": args.rerank}
        if argument in given:
            raise BadInput(f"--{argument}={given[argument]}: {why}") from e
        if argument.startswith(("radius", "recall")):
            raise BadInput(f"--{e}") from e
        raise


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an `.npz` file that appears whole or not at all; BadInput if the disk refuses."""
    remedy = "free space or choose another directory"
    with whole.telling(path, remedy, flag="--output="), whole.writing(path) as f:
        np.savez(f, **arrays)


def _check_flags(args) -> None:
    """Refuses before anything is read what could not be answered or written afterwards."""
    if args.output.suffix != ".npz":
        raise BadInput(f"--output={args.output}: neighbours are an .npz file; end its name so")
    if args.output.exists() and not args.overwrite:
        raise BadInput(f"--output={args.output}: exists; use --overwrite or another name")
    if not args.output.parent.is_dir():
        raise BadInput(f"--output={args.output}: no such directory; make its directory first")
    if not os.access(args.output.parent, os.W_OK):
        raise BadInput(
            f"--output={args.output}: no permission to write to its directory; change that, or "
            "choose another"
        )
    for flag in ("only", "rerank"):
        if getattr(args, flag) == "":
            raise BadInput(f"--{flag}: names no file; give one, or leave it out")
    if args.rerank and not args.workdir:
        raise BadInput("--rerank: compares vectors; give vectors as --queries, and --workdir")
    if (args.k is None) == (args.radius is None):
        raise BadInput("--k: the nearest of each query, or all rows within --radius; give one")
    if args.recall is not None and args.radius is None:
        raise BadInput("--recall: is of --radius, which is missing")
    if args.radius is not None:
        if not args.workdir:
            raise BadInput("--radius: needs vectors as --queries, and --workdir")
        for flag in ("by", "candidates", "oversample", "engine"):
            if getattr(args, flag) is not None:
                raise BadInput(f"--{flag}: is of --k; all codes are compared with --radius")
    args.recall = radius.RECALL if args.recall is None else args.recall
    args.engine = args.engine or "auto"
    args.by = args.by or ("synthetic" if args.workdir else "hamming")
    if args.by in ("synthetic", "projection") and not args.workdir:
        raise BadInput(f"--by={args.by}: needs vectors as --queries, and --workdir")
    if args.oversample is not None and not args.rerank:
        raise BadInput("--oversample: is of --rerank, which is missing")
    if args.candidates is not None and args.by != "synthetic":
        raise BadInput(f"--candidates: all rows are ranked {BY[args.by]}; leave it out")
    defaults = {"oversample": searching.OVERSAMPLE, "candidates": searching.CANDIDATES}
    for flag, default in defaults.items():
        given = getattr(args, flag)
        if given is not None and given < 1:
            raise BadInput(f"--{flag}={given}: must be 1 or more")
        setattr(args, flag, default if given is None else given)


def _read_codes(flag: str, name: str) -> tuple[np.ndarray, dict | None]:
    """Packed codes `[n, W] u8`, memory-mapped where their format allows, and what is known of them.

    Where an `encode --overwrite` is ending, codes and facts of two versions may be read, or none
    be there for a moment: then both are read once more.
    """
    ending = resumable.beside(Path(os.path.expanduser(name)), ".partial").exists()
    try:
        return _read_once(flag, name)
    except BadInput:
        if not ending:
            raise
    time.sleep(ENDING_SECS)
    return _read_once(flag, name)


def _read_once(flag: str, name: str) -> tuple[np.ndarray, dict | None]:
    packed = read_file(name)
    if packed.dtype != np.uint8:
        hint = "" if flag == "--codes" else ", or vectors with --workdir"
        raise BadInput(f"{flag}={name}: holds {packed.dtype}, expected uint8 codes{hint}")
    return packed, code_facts.read_facts(name, packed)


def _read_subset(name: str, rows: int, bad: np.ndarray) -> np.ndarray:
    """`[s] i64`, rising: the rows of codes that `--only` names and that are not bad."""
    path = Path(os.path.expanduser(name))
    f = open_regular(path)
    with reading_as("npy", path, "write it with np.save(path, row_numbers)"):
        only = np.lib.format.read_array(f, allow_pickle=False)
    try:
        return gaps.subset(only, rows, bad)
    except BadInput as e:
        raise BadInput(f"--only={name}: {e}") from e


def _check_encoder(args, of_codes: dict | None, of_queries: dict | None) -> str:
    """Refuses codes and queries of two encoders; gives a line for people if one is not known.

    Args:
        of_codes, of_queries: "bits" and "encoder" of each, None if not known.
    """
    if not (of_codes and of_queries):
        name = args.queries if of_codes else args.codes
        return f"\n{name}: no {name}.json names the encoder of these codes; it was not checked"
    for field in ("bits", "encoder"):
        if of_codes[field] != of_queries[field]:
            raise BadInput(
                f"--codes={args.codes}: {args.codes}.json names {field} {of_codes[field]}, "
                f"{args.workdir or args.queries} has {of_queries[field]}; encode both by one run "
                "and checkpoint"
            )
    return ""


def _check_vectors(
    args,
    h: Hasher,
    cb: np.ndarray,
    facts: dict | None,
    bad: np.ndarray,
    subset: np.ndarray | None,
    xq: np.ndarray,
    base: np.ndarray | None,
) -> None:
    """Refuses codes, queries and vectors to re-rank by that are not of this run and one another."""
    if cb.shape[1] != codes.packed_bytes(h.bits):
        raise BadInput(
            f"--codes={args.codes}: codes of {cb.shape[1]} bytes, {args.workdir} makes codes of "
            f"{h.bits} bits; encode them by this run"
        )
    for flag, name, x in (("queries", args.queries, xq), ("rerank", args.rerank, base)):
        if x is not None and x.shape[1] != h.d:
            raise BadInput(
                f"--{flag}={name}: d={x.shape[1]}, {args.workdir} was trained on d={h.d}"
            )
    if base is None:
        return
    if len(base) != len(cb):
        raise BadInput(
            f"--rerank={args.rerank}: {len(base)} rows, but {args.codes} holds {len(cb)} codes; "
            "give the file that was encoded"
        )
    count = len(cb) - len(bad) if subset is None else len(subset)
    if not count:
        return
    rows = np.unique(np.linspace(0, count - 1, SAMPLE_ROWS).astype(int))
    rows = gaps.present(rows, bad) if subset is None else subset[rows]  # others may be gone
    sample = base[rows]
    read = lambda i, j: sample[i:j]  # noqa: E731
    # where nothing is known of them, codes are refined as by default, or plain, as exported
    # encoders make them
    for refine in (facts["refine"],) if facts else (None, 0):
        _, packed, good = next(h.encode_blocks(read, 0, len(rows), refine=refine))
        wrong = np.bitwise_count(packed ^ cb[rows[: len(packed)]])[good].sum()
        if wrong <= MOST_WRONG * h.bits * good.sum():
            return
    raise BadInput(
        f"--rerank={args.rerank}: {args.codes} does not hold the codes that {args.workdir} "
        "makes of its rows; give the file and the run that they were encoded with"
    )


@command("nothing was written")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input or a full disk, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", required=True, help="file of codes, made by encode")
    parser.add_argument(
        "--queries", required=True, help="file of vectors; without --workdir, codes"
    )
    parser.add_argument("--k", type=int, help="how many neighbours of each query")
    parser.add_argument(
        "--radius",
        type=float,
        help="in place of --k: all rows within this distance, of ip of this inner product or more",
    )
    parser.add_argument(
        "--recall",
        type=float,
        help=f"the share of the rows within --radius to find; default {radius.RECALL}",
    )
    parser.add_argument("--output", required=True, type=Path, help="an .npz file to write")
    parser.add_argument(
        "--workdir", type=Path, help="run directory, or encoder.npz, that made the codes"
    )
    parser.add_argument(
        "--checkpoint", default="best", help="which checkpoint of the run: best, latest or a step"
    )
    parser.add_argument(
        "--by",
        choices=BY,
        help="what ranks the codes: synthetic features of candidates (default with --workdir), "
        "both codes of a query, the query's own code (hamming), or its real projections",
    )
    parser.add_argument(
        "--candidates",
        type=int,
        help=f"how many codes are decoded for each query; default {searching.CANDIDATES}",
    )
    parser.add_argument(
        "--only",
        help="a .npy file: the row numbers to search among, or a boolean for each code, False "
        "where a row is filtered out or deleted",
    )
    parser.add_argument("--rerank", help="file of the vectors of --codes, which rank the nearest")
    parser.add_argument(
        "--oversample",
        type=int,
        help=f"--rerank ranks k times this; default {searching.OVERSAMPLE}",
    )
    parser.add_argument("--engine", choices=searching.ENGINES, help="default: auto")
    parser.add_argument("--overwrite", action="store_true", help="replace --output if it exists")
    args = parser.parse_args(argv)
    args.output = Path(os.path.expanduser(args.output))
    print(search(args))


class _Callable(types.ModuleType):
    """This module, which takes the place of `sigah_jax.search` in its package once imported."""

    __signature__ = inspect.signature(searching.search)

    def __call__(self, *args, **kwargs):
        return searching.search(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main())
