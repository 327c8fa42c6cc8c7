"""Whether new rows are like those that an encoder was trained on, or it should be trained anew.

    python -m sigah_jax.check --workdir=runs/… --input=new.npy
    python -m sigah_jax.check --workdir=runs/… --input=new.npy --queries=queries.npy

Prints figures of the rows and their codes beside those of rows that were held out from training,
and a sentence of advice that says what it rests on: see `encoder.drift`. A training keeps the
figures of its held-out rows with the encoder. Of an encoder that was saved before, give rows that
are like those that it was trained on, and were not among them: `--reference=FILE`.

With `--queries` the advice rests on recall: which of the ten nearest rows of the input the codes
find for these queries, and how much validation queries found among as many rows of the training.

Not responsible for the figures (`encoder.drift`) nor for formats (`formats.vectors`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import sys
from pathlib import Path

import numpy as np

from sigah_jax.command_line import Parser, command
from sigah_jax.devices import parallel
from sigah_jax.encoder import drift
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.encoder.inputs import have_distances
from sigah_jax.errors import BadInput
from sigah_jax.formats.raw import row_blocks
from sigah_jax.formats.vectors import open_file
from sigah_jax.retrieval import evenly
from sigah_jax.retrieval.bad_rows import why_bad
from sigah_jax.retrieval.metric import base_rows, queries_of
from sigah_jax.run import loading

TRAIN_ANEW = 4  # exit code of that advice; 1 is that of a program error
LEAST_ROWS = 100  # of fewer, chance alone may pass the limits of `drift.advice`
MOST_ROWS = 10_000  # of more, as many are looked at, evenly from first to last
LABELS = {
    "rows": "rows",
    "error": "error of codes, ‖z - ẑ‖²",
    "outside": "outside of the principal directions",
    "spread": "squared distance to the training mean",
    "shift": "shift of the mean",
    "imbalance": "imbalance of bits",
    "refined": "share of bits that are refined",
    "lost": "share of variance that codes lose",
    "far": "share of rows whose codes lose far more",
}


def sample(flag: str, name: str, h: Hasher, kind: str = "base") -> np.ndarray:
    """Rows of a file, `[n, d]`: all, or `MOST_ROWS` of them.

    Args:
        kind: as in `Hasher.encode_blocks`.

    Raises:
        BadInput: another d, fewer than `LEAST_ROWS`, a row that cannot be encoded, rows of the
            base that are all equal.
    """
    v = open_file(name)
    n = v.shape[0]
    if v.shape[1] != h.d:
        raise BadInput(f"--{flag}={name}: d={v.shape[1]}, this hasher was trained on d={h.d}")
    if n < LEAST_ROWS:
        raise BadInput(
            f"--{flag}={name}: {n} rows tell too little; give {LEAST_ROWS} or more, for example "
            "those of several days"
        )
    numbers = evenly.rows(n, MOST_ROWS)
    if v.view:
        x = v.view()[numbers]
    else:  # all is read, a block at a time
        blocks = row_blocks(v.shape, v.dtype.itemsize)
        x = np.concatenate(
            [v.read(i, j)[numbers[(i <= numbers) & (numbers < j)] - i] for i, j in blocks]
        )
    blocks = h.encode_blocks(lambda i, j: x[i:j], 0, len(x), kind, refine=0)
    good = np.concatenate([good for _, _, good in blocks])
    if kind == "queries" and good.all():
        good = have_distances(h.query_features(x))
    if not good.all():
        row = int(good.argmin())
        raise BadInput(f"--{flag}={name}: {why_bad(x[row], numbers[row])}")
    if kind == "base" and not np.ptp(np.asarray(x, np.float32), axis=0).any():
        raise BadInput(
            f"--{flag}={name}: its rows are all equal, nothing can be compared with them; give "
            "others"
        )
    return x


def table(columns: dict[str, drift.Figures]) -> str:
    """The figures as text, a column for each name."""
    lines = [["", *columns]]
    for field, label in LABELS.items():
        values = (getattr(figures, field) for figures in columns.values())
        lines.append([label, *(f"{v}" if field == "rows" else f"{v:.3f}" for v in values)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


@command("nothing was written")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 keep the encoder, 4 train anew, 2 bad input, 130 interrupted."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workdir", required=True, type=Path, help="run directory, or an encoder's .npz file"
    )
    parser.add_argument("--input", required=True, help="vectors; FILE.hdf5:NAME for one array")
    parser.add_argument(
        "--reference",
        help="rows like those of training, but not among them; default: figures of held-out rows "
        "that the training kept",
    )
    parser.add_argument(
        "--queries", help="vectors of queries; then the advice rests on what they find by codes"
    )
    args = parser.parse_args(argv)
    h = loading.load(args.workdir)
    if args.queries and not h.facts.get("recall"):
        raise BadInput(
            f"--queries: {args.workdir} was saved without the recall of its validation queries, as "
            "encoders of fewer than 100 training rows, of checkpoints and of earlier versions are; "
            "move encoder.npz of a finished run away, then the training's command writes it anew, "
            "unless a version with other defaults began the run"
        )
    if args.reference:
        held_out = drift.figures(h, sample("reference", args.reference, h))
    else:
        held_out = drift.reference(h)
    if held_out is None and not args.queries:
        raise BadInput(
            f"--workdir={args.workdir}: this encoder was saved without figures of held-out rows; "
            "give rows that are like those of its training, and not among them, as --reference"
        )
    x = sample("input", args.input, h)
    advice = []
    if args.queries:
        advice.append(advice_by_queries(h, sample("queries", args.queries, h, "queries"), x))
    if held_out:
        found = drift.figures(h, x, held_out)
        print(table({"held out": held_out, Path(args.input).name: found}) + "\n")
        advice.append(drift.advice(found, held_out))
    (anew, sentence), *others = advice
    print(sentence)
    if others and others[0][0] != anew:
        print(f"by the figures above alone: {others[0][1]}")
    return TRAIN_ANEW if anew else 0


def advice_by_queries(h: Hasher, queries: np.ndarray, x: np.ndarray) -> tuple[bool, str]:
    """`drift.advice_of_recall` of queries `[Q, d]` among rows `[n, d]`.

    Of more rows than validation queries searched, as many are taken evenly.
    """
    held_out = h.facts["recall"]
    if not min(held_out.values()):
        raise BadInput(
            "--queries: validation queries of this encoder found none of their nearest rows, so "
            "nothing can be compared with them; leave --queries out"
        )
    most = max(int(size) for size in held_out)
    x = evenly.of(x, most)
    xq, xb = queries_of(h.metric, queries), base_rows(h.metric, x)
    xq, xb = (np.asarray(points, np.float32) for points in (xq, xb))
    found = drift.recall(h, xq, xb, h.encode(x), parallel.engine("auto"))
    return drift.advice_of_recall(found, len(x), len(queries), held_out)


if __name__ == "__main__":
    sys.exit(main())
