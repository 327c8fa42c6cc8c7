"""Searches a file of codes, exactly, and re-ranks by the original vectors if they are given.

    python -m sigah_jax.search --codes=codes.npy --queries=codes_q.npy --k=100 --output=near.npz
    python -m sigah_jax.search --workdir=runs/… --codes=codes.npy --queries=vectors_q.npy --k=100 \
        --rerank=vectors.npy --oversample=10 --output=near.npz
    python -m sigah_jax.search --workdir=runs/… --codes=codes.npy --queries=vectors_q.npy \
        --radius=0.6 --recall=.95 --output=near.npz

Queries are packed codes, of `encode --queries`, of `encode --queries=both` for `--by=both`, or with
--workdir vectors, which find more: their two codes rank all codes, the --candidates nearest are
ranked by ‖β z - ẑ‖², see `Hasher.query_features`, and of these the nearest by the vectors of
--rerank, if they are given. `--by` ranks all codes by something else: both codes of a query, its
own alone, as for packed codes, or its real projections.

`--only=ids.npy` searches within a subset, exactly, at the cost of so many codes: the file holds row
numbers, or a boolean for each code. The boolean of a deleted row is False.

`--radius` in place of `--k` finds all rows that probably lie within it: a Euclidean distance, of
cosine 1 - cos, of ip the least inner product. The encoder knows by its validation queries how near
a synthetic feature must be so that the share `--recall` of these rows is found. `--rerank` leaves
those that are within. See `encoder.radius`.

What `encode` left beside the codes, `codes.npy.json`, must name the encoder of the queries; where
it is missing, on either side, a line says that this was not checked. Rows that it lists as bad are
no neighbours and no candidates; queries that are bad are refused.

The output is an `.npz` file of `ids [Q, k] int64`, row numbers of the codes, and `distances
[Q, k]`: float32, ‖β z - ẑ‖², the weighted Hamming distance of projections, or, if re-ranked, that
of the encoder's metric, the squared Euclidean distance, 1 - cos or -q·x; int32 of codes, the bits
that differ, those of the query's own code counted twice where both rank. Each row is sorted by
(distance, id). With `--radius` it holds `lims [Q + 1] int64`, `ids [t] int64` and `distances [t]
float32`: the rows of query i are those from lims[i] to lims[i + 1], nearest first, at ‖β z - ẑ‖²,
or if re-ranked at what the radius is compared with, the Euclidean distance, 1 - cos or q·x.

`sigah_jax.search(h, queries, codes, k)` from Python is `encoder.searching.search`, also where this
module was imported and has that name.

Shapes: Q queries, n codes, W packed bytes, d columns, k neighbours, t rows of all queries.

Not responsible for how neighbours are found (`encoder.searching`, `retrieval`) nor for what files
belong together (`encoder.search_files`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import inspect
import os
import sys
import time
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax.command_line import Parser, add_encoder, command
from sigah_jax.devices import parallel
from sigah_jax.encoder import radius, search_files, searching
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.retrieval import both, gaps, hamming
from sigah_jax.run import loading, rundir

BY = {
    "synthetic": "by synthetic features",
    "both": "by both codes of the query",
    "hamming": "by Hamming distance",
    "projection": "by projections of the query",
}


class Given(NamedTuple):
    """What the files of a search hold."""

    h: Hasher | None  # None: queries are codes
    base: search_files.Base
    queries: np.ndarray  # [Q, d] vectors; or [Q, W] codes, with --by=both [Q, 2 W]
    originals: np.ndarray | None  # [n, d], to re-rank by
    note: str  # a line for people if codes of an unknown encoder were not checked


def read(args) -> Given:
    """The files of these flags; BadInput unless they belong together."""
    base = search_files.read_base(args.codes, args.only)
    _check_k(args, base)
    if not args.workdir:
        queries, note = search_files.read_query_codes(args.queries, base, args.by)
        return Given(None, base, queries, None, note)
    h, originals = loading.load(args.workdir, args.checkpoint), None
    note = search_files.check_run(base, args.workdir, h)
    queries = search_files.read_vectors("--queries", args.queries, args.workdir, h)
    if args.rerank:
        originals = search_files.read_originals(args.rerank, base, args.workdir, h)
    return Given(h, base, queries, originals, note)


def _check_k(args, base: search_files.Base) -> None:
    """Refuses more neighbours than there are rows."""
    rows = base.rows
    if args.k is None or 1 <= args.k <= rows:
        return
    beside = f" beside {len(base.bad)} bad rows" if len(base.bad) else ""
    holds = f"{args.codes} holds {rows} codes{beside}"
    if base.subset is not None:
        holds = f"--only={args.only} leaves {rows} codes of {args.codes}"
    choose = f"choose 1 to {rows}" if rows else "there is nothing to find"
    raise BadInput(f"--k={args.k}: {holds}; {choose}")


def search(args, given: Given) -> tuple[dict[str, np.ndarray], str, str]:
    """The arrays of the output, and for people what they are and how they were found."""
    try:
        if args.k is None:
            return _within_radius(args, given)
        d, ids, how = (_by_codes if given.h is None else _by_vectors)(args, given)
        return {"ids": ids, "distances": d}, f"{args.k} neighbours", how
    except BadInput as e:  # it names an argument, of which a person gave the flag
        argument, _, why = str(e).partition(": ")
        files = {"queries": args.queries, "rerank": args.rerank}
        if argument in files:
            raise BadInput(f"--{argument}={files[argument]}: {why}") from e
        if argument.startswith(("radius", "recall")):
            raise BadInput(f"--{e}") from e
        raise


def _by_codes(args, given: Given) -> tuple[np.ndarray, np.ndarray, str]:
    """Distances and ids by codes of queries, `[Q, k]` each, and how they were found."""
    base, queries, way = given.base, given.queries, hamming.search
    if args.by == "both":
        queries, way = queries.reshape(len(queries), 2, -1), both.search
    engine = parallel.engine(args.engine)
    find = lambda packed, k: way(queries, packed, k, engine)  # noqa: E731
    return *gaps.search(find, base.packed, base.bad, args.k, base.subset), BY[args.by]


def _by_vectors(args, given: Given) -> tuple[np.ndarray, np.ndarray, str]:
    """As `_by_codes` by vectors of queries."""
    h, base, queries, originals, _ = given
    options = {"by": args.by, "rerank": originals, "missing": base.bad, "only": base.subset}
    options |= {"candidates": args.candidates, "oversample": args.oversample}
    found = searching.search(h, queries, base.packed, args.k, engine=args.engine, **options)
    ranked, last = BY[args.by], args.k
    if args.rerank:
        last = min(base.rows, args.k * args.oversample)
        ranked = f"{last} nearest {ranked}, re-ranked by {args.rerank}"
    if args.by == "synthetic":
        ranked = f"{min(base.rows, max(args.candidates, last))} nearest {BY['both']}, {ranked}"
    return *found, ranked


def _within_radius(args, given: Given) -> tuple[dict[str, np.ndarray], str, str]:
    """As `search` all rows within `--radius`."""
    h, base, queries, originals, _ = given
    options = {"rerank": originals, "missing": base.bad, "only": base.subset}
    found = radius.range_search(h, queries, base.packed, args.radius, recall=args.recall, **options)
    each = len(found.ids) / max(1, len(queries))
    checked = f", of which {args.rerank} left those within it" if args.rerank else ""
    return (
        {"lims": found.lims, "ids": found.ids, "distances": found.distances},
        f"{each:.1f} rows within {args.radius:g} of each",
        f"{BY['synthetic']}{checked} (validation queries found {found.recall:.1%} of the rows "
        f"within it so, {found.precision:.1%} of what they found lay within it)",
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags, checked as far as they can be before anything is read."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", required=True, help="file of codes, made by encode")
    parser.add_argument(
        "--queries", required=True, help="file of vectors; without --workdir, codes"
    )
    parser.add_argument("--k", type=int, help="how many neighbours of each query")
    parser.add_argument(
        "--radius",
        type=float,
        help="in place of --k: all rows within this distance, or for the metric ip all rows whose "
        "inner product is at least this",
    )
    parser.add_argument(
        "--recall",
        type=float,
        help=f"the share of the rows within --radius to find; default {radius.RECALL}",
    )
    parser.add_argument("--output", required=True, type=Path, help="an .npz file to write")
    add_encoder(parser, required=False)
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
    _check_flags(args)
    return args


def _check_flags(args) -> None:
    """Refuses what could not be answered or written; puts defaults in place of None."""
    if args.output.suffix != ".npz":
        raise BadInput(f"--output={args.output}: neighbours are an .npz file; end its name so")
    if args.output.exists() and not args.overwrite:
        raise BadInput(f"--output={args.output}: exists; use --overwrite or another name")
    if args.workdir:
        rundir.check_output(args.output, args.workdir)
    if not args.output.parent.is_dir():
        raise BadInput(f"--output={args.output}: no such directory; make its directory first")
    if not os.access(args.output.parent, os.W_OK):
        raise BadInput(
            f"--output={args.output}: no permission to write to its directory; change that, or "
            "choose another"
        )
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


@command("nothing was written")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input or a full disk, 130 interrupted."""
    args = parse(argv)
    given = read(args)
    start = time.monotonic()
    arrays, what, how = search(args, given)
    seconds, base = time.monotonic() - start, given.base
    remedy = "free space or choose another directory"
    with whole.telling(args.output, remedy, flag="--output="), whole.writing(args.output) as f:
        np.savez(f, **arrays)
    among = f"{base.rows}" if base.subset is None else f"{base.rows} of {len(base.packed)}"
    print(
        f"{args.output}: {what} of {len(given.queries)} queries among {among} codes of "
        f"{base.packed.shape[1]} bytes, {how}, {seconds:.2f} s{given.note}"
    )


class _Callable(types.ModuleType):
    """This module, which takes the place of `sigah_jax.search` in its package once imported."""

    __signature__ = inspect.signature(searching.search)

    def __call__(self, *args, **kwargs):
        return searching.search(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main())
