"""How much of your vectors' neighbourhood binary codes keep, and at what memory and time.

    python -m sigah_jax.measure --input=vectors.npy --bits=64,128,256

Trains SiGAH at each length, fits ITQ, LSH and sign bits on the same rows, encodes the base and
searches it with the same queries: by Hamming distance, as a store does; with the query real, by its
projections; and with the candidates re-ranked by the vectors themselves. SiGAH's codes are also
ranked by both codes of a query, and candidates by their synthetic features: see
`sigah_jax.search`. Leaves `measure.json`, `measure.md` and `measure.png` in the run
directory, and ends with one sentence of advice. Trainings resume where they were interrupted.

Shapes: n base rows, Q queries, d columns, K bits, W packed bytes, k neighbours.

Not responsible for how a table or plot looks: `report.measured`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax.baselines.methods import METHODS
from sigah_jax.config import validate, vectors_config
from sigah_jax.data.datasets import Dataset, load_dataset, open_file
from sigah_jax.devices import parallel
from sigah_jax.encoder import searching
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.errors import BadInput, command
from sigah_jax.files import whole
from sigah_jax.model.keys import Purpose, key_for
from sigah_jax.report import measured
from sigah_jax.retrieval import asymmetric, euclidean, hamming, metric, neighbours, rerank
from sigah_jax.run import rundir
from sigah_jax.training import evaluate, prepare
from sigah_jax.training.run import run


class Encoder(NamedTuple):
    """A trained method."""

    method: str
    bits: int
    fit_secs: float | None  # None: a part of it was done before
    encode: Callable[[np.ndarray], np.ndarray]  # [n, d] -> [n, W] u1, of the base
    encode_queries: Callable[[np.ndarray], np.ndarray]  # [n, d] -> [n, W] u1
    project: Callable[[np.ndarray], np.ndarray]  # queries, [n, d] -> [n, K] f32
    hasher: Hasher | None  # of SiGAH, which has a decoder


class Search(NamedTuple):
    """What is asked of every encoder."""

    k: int
    oversample: int  # k times as many rows are re-ranked, at most n
    truth: np.ndarray  # [Q, k], the true k nearest of each query
    engine: str
    block_rows: int  # encoded at once


def recall(xq: np.ndarray, xb: np.ndarray, ids: np.ndarray, truth: np.ndarray) -> float:
    """The share of the found rows that are as near as the k-th true neighbour, over all queries.

    By distance and not by id: of base rows at equal distance each is as good as the other.

    Args:
        ids, truth: `[Q, k]` base ids, distinct in a row.
    """
    limits = neighbours.exact_distances(xq, xb, truth).max(axis=1, keepdims=True)
    return float((neighbours.exact_distances(xq, xb, ids) <= limits).mean())


def row_of(encoder: Encoder, data: Dataset, search: Search) -> measured.Row:
    """Encodes and searches; times are wall time on all devices, of queries from the vectors on.

    What compiles is run once before.
    """
    encoder.encode(data.xb[: search.block_rows])  # compiles
    start = time.monotonic()
    cb = encoder.encode(data.xb)
    encode_secs = time.monotonic() - start
    k, engine = search.k, search.engine
    if h := encoder.hasher:
        find = functools.partial(searching.search, h, data.xq, cb, k, engine=engine)
        ways = {by: functools.partial(find, by=by) for by in searching.BY}
        ways["reranked"] = functools.partial(find, rerank=data.xb, oversample=search.oversample)
    else:

        def nearest(k: int) -> tuple[np.ndarray, np.ndarray]:
            return hamming.search(encoder.encode_queries(data.xq), cb, k, engine)

        candidates = min(len(cb), k * search.oversample)
        ways = {
            "hamming": lambda: nearest(k),
            "projection": lambda: asymmetric.by_projection(encoder.project(data.xq), cb, k),
            "reranked": lambda: rerank.rerank(data.xq, data.xb, nearest(candidates)[1], k),
        }
    found = {}
    for name, way in ways.items():
        way()  # compiles
        start = time.monotonic()
        _, ids = way()
        milliseconds = 1000 * (time.monotonic() - start) / len(data.xq)
        share = recall(data.xq, data.xb, ids, search.truth)
        found[name] = measured.Found(share, milliseconds)
    rate = len(data.xb) / encode_secs
    return measured.Row(encoder.method, encoder.bits, cb.shape[1], encoder.fit_secs, rate, found)


def exact(data: Dataset, search: Search) -> measured.Row:
    """The vectors themselves as float32, searched one by one: what codes are compared with."""
    euclidean.knn(data.xq, data.xb, search.k, search.engine)  # compiles
    start = time.monotonic()
    euclidean.knn(data.xq, data.xb, search.k, search.engine)
    milliseconds = 1000 * (time.monotonic() - start) / len(data.xq)
    found = {"reranked": measured.Found(1.0, milliseconds)}
    row_bytes = 4 * (data.xb.shape[1] - data.metric.added)
    return measured.Row("exact", 0, row_bytes, 0.0, 0.0, found)


def make_config(args, bits: int):
    """The config of the training at one length, `preset=best` but for the flags."""
    config = vectors_config(f"preset=best,bits={bits}")
    config.data.base, config.data.queries = args.input, args.queries
    config.data.metric = args.metric
    config.eval.baselines = ()
    if args.steps is not None:
        config.train.steps = args.steps
    try:
        validate(config, len(parallel.local_devices()))
    except BadInput as e:
        steps = f" --steps={args.steps}" if args.steps is not None else ""
        raise BadInput(f"--bits={bits}{steps}: {e}") from e
    return config


def fit_sigah(config, workdir: Path, cache: Path, data: Dataset) -> Encoder:
    """Trains in `workdir`, or resumes; no seconds then, for they would be those of a part.

    Encodes rows of `data`, which went through the metric.
    """
    fresh, start = not workdir.exists(), time.monotonic()
    h = run(config, workdir, cache, lambda: data).euclidean
    seconds = time.monotonic() - start if fresh else None
    return Encoder("sigah", h.bits, seconds, h.encode, h.encode_queries, h.project_queries, h)


def fit_baseline(method: str, config, bits: int, data: Dataset) -> Encoder:
    """Fits a baseline; BadInput if it cannot have that many bits."""
    start = time.monotonic()
    params = METHODS[method].fit(key_for(config.seed, Purpose.BASELINE), data.xt, bits)
    seconds, project = time.monotonic() - start, METHODS[method].project
    packed = parallel.map_rows(evaluate.packed(project), config.eval.block_rows)
    real = parallel.map_rows(project, config.eval.block_rows)
    encode = functools.partial(packed, params)
    return Encoder(method, bits, seconds, encode, encode, functools.partial(real, params), None)


def baselines(bits: int, d: int) -> tuple[str, ...]:
    """The baselines that there are at this length; sign bits have one, of d columns."""
    return ("itq", "lsh") if bits <= d else ("lsh",)


def check_rows(args, config) -> None:
    """Raises BadInput if the input has too few rows for what is drawn from it."""
    n, validation = open_file(args.input).shape[0], config.data.val_queries
    held_out = 0 if args.queries else config.data.test_queries
    # a draw takes half of the rows at most: see `datasets.enough`
    wanted = max(2 * held_out, held_out + prepare.pool_rows(config))
    if n < wanted:
        queries = f"{held_out} held out as queries (or give --queries), " if held_out else ""
        raise BadInput(
            f"--input={args.input}: {n} rows, expected at least {wanted}: {queries}{validation} "
            f"for validation, {wanted - held_out - validation} for training"
        )


def check_workdir(args) -> None:
    """Raises BadInput if lengths of other vectors were measured in the directory."""
    for path in sorted(args.workdir.glob("bits*/config.json")):
        held = rundir.read_config(path.parent)[0].data
        for flag, theirs, ours in (
            ("input", held.base, args.input),
            ("queries", held.queries, args.queries),
            ("metric", held.get("metric", "l2"), args.metric),  # earlier versions had no other
        ):
            if theirs != ours:
                raise BadInput(
                    f"--workdir={args.workdir}: {path.parent.name} there is of "
                    f"--{flag}={theirs}, now {ours}; use another --workdir"
                )


def rows(args, print_line: Callable[[str], None]) -> list[measured.Row]:
    """All rows of the table, the vectors themselves first."""
    configs = [make_config(args, bits) for bits in args.bits]
    check_workdir(args)
    check_rows(args, configs[0])
    data = load_dataset(configs[0])
    n, d = data.xb.shape
    if not 1 <= args.k <= n:
        raise BadInput(f"--k={args.k}: expected 1 to {n}, the base rows")
    engine = parallel.engine("auto")
    cache = args.workdir / "data"
    truth = neighbours.nearest_sets(data.xq, data.xb, (args.k,), engine)
    block_rows = configs[0].eval.block_rows * len(parallel.local_devices())
    search = Search(args.k, args.oversample, truth, engine, block_rows)
    found = [exact(data, search)]
    for config in configs:
        bits = config.model.bits
        print_line(f"{bits} bits")
        encoders = [fit_sigah(config, args.workdir / f"bits{bits}", cache, data)]
        encoders += [fit_baseline(method, config, bits, data) for method in baselines(bits, d)]
        found += [row_of(encoder, data, search) for encoder in encoders]
    found.append(row_of(fit_baseline("sign", configs[0], d, data), data, search))
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags, checked as far as they can be without the vectors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", required=True, help="file of vectors; file.hdf5:name for one")
    parser.add_argument("--queries", default="", help="the same; default 1,000 rows of the input")
    parser.add_argument(
        "--metric", default="l2", help=f"what is near: one of {', '.join(metric.NAMES)}"
    )
    parser.add_argument("--bits", default="64,128,256", help="code lengths, with commas between")
    parser.add_argument("--k", type=int, default=10, help="neighbours asked for")
    parser.add_argument("--oversample", type=int, default=10, help="k times this are re-ranked")
    parser.add_argument("--target", type=float, default=0.95, help="recall@k wanted of the advice")
    parser.add_argument("--steps", type=int, help="training steps; default those of preset=best")
    parser.add_argument("--workdir", help="default runs/measure/<name of the input>")
    args = parser.parse_args(argv)
    if not all(k.isdecimal() and int(k) for k in args.bits.split(",")):
        raise BadInput(f"--bits={args.bits}: expected whole numbers above 0, with commas between")
    args.bits = [int(k) for k in args.bits.split(",")]
    if args.metric not in metric.NAMES:
        raise BadInput(f"--metric={args.metric}: expected one of {', '.join(metric.NAMES)}")
    if args.oversample < 1:
        raise BadInput(f"--oversample={args.oversample}: expected 1 or more")
    if not 0 < args.target <= 1:
        raise BadInput(f"--target={args.target}: expected a share above 0, at most 1")
    default = f"runs/measure/{Path(args.input).stem}"
    args.workdir = Path(os.path.expanduser(args.workdir or default))
    return args


@command("the same command resumes")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input, 3 a loss that is not finite, 130 interrupted."""
    args = parse(argv)
    found = rows(args, print)
    table = measured.table(found, args.k, args.oversample * args.k)
    advice = measured.advice(found, args.k, args.target)
    text = f"{table}\n\n{advice}\n"
    print(f"\n{text}")
    plain = {"rows": [measured.plain(row) for row in found]}
    remedy = "free space or check its permissions, then the same command resumes"
    with whole.telling(args.workdir, remedy, flag="--workdir="):
        whole.write_text(args.workdir / "measure.md", text)
        whole.write_json(args.workdir / "measure.json", plain)
        measured.plot(found, args.k, args.workdir / "measure.png")
    print(f"{args.workdir}/measure.md, measure.json, measure.png")


if __name__ == "__main__":
    sys.exit(main())
