"""What codes of your vectors lose, and at what memory and time: SiGAH's and those of its peers.

    python -m sigah_jax.measure --input=vectors.npy --bits=64,128,256

Trains SiGAH at each length, fits its peers on the same rows, encodes the base and searches it with
the same queries, by the codes alone and with the nearest re-ranked by the vectors. Rows are grouped
by what a store must be able to search: bits by Hamming distance (SiGAH, ITQ, generative SGH, LSH,
sign bits); codes by real-valued queries (SiGAH in the stages of `sigah_jax.search`, quantisers of
faiss at equal bytes); the vectors. Leaves `measure.json`, which also says what was asked,
`measure.md` and `measure.png` in the run directory, in place of those of an earlier command, and
ends with advice. Trainings of SiGAH resume where they were interrupted.

Not responsible for how one method is measured (`training.measurements`) nor for how a table or plot
looks (`report.measured`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from sigah_jax.command_line import Parser, at_least, command, whole_numbers
from sigah_jax.config import vectors_config
from sigah_jax.config_checks import validate
from sigah_jax.data.datasets import load_dataset
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.formats.vectors import open_file
from sigah_jax.report import measured
from sigah_jax.retrieval import metric, neighbours
from sigah_jax.run import rundir
from sigah_jax.training import measurements, prepare

BASELINES = ("itq", "sgen", "lsh")  # and sign bits, which have one length
PEERS = ("rq", "rabitq", "sqtqmse1", "sqtqmse2")  # and OPQ


def make_config(args, bits: int):
    """The config of the training at one length, `preset=best` but for the flags."""
    config = vectors_config(f"preset=best,bits={bits}")
    config.data.base, config.data.queries = args.input, args.queries
    config.data.queries_train = args.queries_train
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


def check_rows(args, config) -> None:
    """Raises BadInput if the input has too few rows for what is drawn from it."""
    n, validation = open_file(args.input).shape[0], config.data.val_queries
    held_out = 0 if args.queries else config.data.test_queries
    of_rows = 0 if args.queries_train else validation
    # a draw takes half of the rows at most: see `datasets.enough`
    wanted = max(2 * held_out, held_out + prepare.pool_rows(config))
    if n < wanted:
        parts = {
            "held out as queries (or give --queries)": held_out,
            "for validation": of_rows,
            "for training": wanted - held_out - of_rows,
        }
        told = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
        raise BadInput(f"--input={args.input}: {n} rows, expected at least {wanted}: {told}")
    if args.queries_train and (m := open_file(args.queries_train).shape[0]) < 2 * validation:
        raise BadInput(
            f"--queries_train={args.queries_train}: {m} queries, expected at least "
            f"{2 * validation}, {validation} of them for validation"
        )


def check_workdir(args) -> None:
    """Raises BadInput if lengths of other vectors were measured in the directory.

    A file that is spelt in another way there, as earlier versions did, is spelt as there, for the
    configs of runs are compared.
    """
    for path in sorted(args.workdir.glob("bits*/config.json")):
        held = rundir.read_config(path.parent)[0].data
        for flag, theirs, ours in (
            ("input", held.base, args.input),
            ("queries", held.queries, args.queries),
            ("queries_train", held.queries_train, args.queries_train),
            ("metric", held.metric, args.metric),
        ):
            if flag != "metric" and theirs and _absolute(theirs) == ours:
                setattr(args, flag, theirs)
            elif theirs != ours:
                raise BadInput(
                    f"--workdir={args.workdir}: {path.parent.name} there is of "
                    f"--{flag}={theirs}, now {ours}; use another --workdir"
                )


def _absolute(name: str) -> str:
    return os.path.abspath(os.path.expanduser(name))


def rows(args, print_line: Callable[[str], None]) -> list[measured.Row]:
    """All rows of the table, the vectors themselves first."""
    check_workdir(args)
    configs = [make_config(args, bits) for bits in args.bits]
    check_rows(args, configs[0])
    data = load_dataset(configs[0])
    n, d = data.xb.shape
    if not 1 <= args.k < n:
        raise BadInput(f"--k={args.k}: expected 1 to {n - 1}, there are {n} base rows")
    if args.oversample * args.k >= n:
        raise BadInput(
            f"--oversample={args.oversample}: {args.k} times this are all {n} base rows, among "
            "which any code finds all; give less"
        )
    engine = parallel.engine("auto")
    cache = args.workdir / "data"
    truth = neighbours.nearest_sets(data.xq, data.xb, (args.k,), engine)
    block_rows = configs[0].eval.block_rows * len(parallel.local_devices())
    search = measurements.Search(data, args.k, args.oversample, truth, engine, block_rows)
    found = [measurements.exact(search)]
    for config in configs:
        bits = config.model.bits
        print_line(f"{bits} bits")
        found += measurements.sigah(config, args.workdir / f"bits{bits}", cache, search)
        print_line(f"{bits} bits: peers")
        found += [measurements.baseline(name, config, bits, search) for name in BASELINES]
        found += [measurements.opq(config, bits, search)]
        found += [measurements.quantiser(name, config, bits, search) for name in PEERS]
    if not data.metric.added:  # the signs of lifted rows are not those that a store takes
        found.append(measurements.baseline("sign", configs[0], d, search))
    return sorted(found, key=lambda row: row.code_bytes)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags, checked as far as they can be without the vectors."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", required=True, help="file of vectors, or FILE.hdf5:NAME")
    parser.add_argument("--queries", default="", help="file of queries; default 1,000 rows")
    parser.add_argument(
        "--queries_train",
        default="",
        help="file of queries to train with, if queries are of another kind than the rows; "
        "needs --queries, a file of other queries of that kind",
    )
    parser.add_argument(
        "--metric", default="l2", choices=metric.NAMES, help="what is near; default l2"
    )
    parser.add_argument(
        "--bits",
        type=whole_numbers,
        default="64,128,256",
        help="code lengths; default 64,128,256",
    )
    parser.add_argument("--k", type=int, default=10, help="neighbours of a query; default 10")
    parser.add_argument(
        "--oversample", type=at_least(1), default=10, help="re-rank k times this; default 10"
    )
    parser.add_argument("--target", type=float, default=0.95, help="recall@k wanted; default .95")
    parser.add_argument("--steps", type=int, help="training steps; default those of preset=best")
    parser.add_argument("--workdir", help="default runs/measure/<name of the input>")
    args = parser.parse_args(argv)
    if args.queries_train and not args.queries:
        raise BadInput(
            f"--queries_train={args.queries_train}: codes are measured by other queries of "
            "that kind; give them as --queries"
        )
    if not 0 < args.target <= 1:
        raise BadInput(f"--target={args.target}: expected a share above 0, at most 1")
    for flag in ("input", "queries", "queries_train"):  # so that a run means them anywhere
        if name := getattr(args, flag):
            setattr(args, flag, _absolute(name))
    default = f"runs/measure/{Path(args.input).stem}"
    args.workdir = Path(os.path.expanduser(args.workdir or default))
    return args


@command("the same command resumes")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input, 3 a loss that is not finite, 130 interrupted."""
    args = parse(argv)
    found = rows(args, print)
    candidates = args.oversample * args.k
    table = measured.table(found, args.k, candidates)
    advice = measured.advice(found, args.k, candidates, args.target)
    text = f"{table}\n\n{advice}\n"
    print(f"\n{text}")
    flags = ("input", "queries", "queries_train", "metric", "k", "oversample", "steps")
    plain = {flag: getattr(args, flag) for flag in flags}
    plain["rows"] = [measured.plain(row) for row in found]
    remedy = "free space or check its permissions, then the same command resumes"
    with whole.telling(args.workdir, remedy, flag="--workdir="):
        whole.write_text(args.workdir / "measure.md", text)
        whole.write_json(args.workdir / "measure.json", plain)
        measured.plot(found, args.k, candidates, args.workdir / "measure.png")
    print(f"{args.workdir}/measure.md, measure.json, measure.png")


if __name__ == "__main__":
    sys.exit(main())
