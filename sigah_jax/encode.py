"""Encodes a file of vectors:

    python -m sigah_jax.encode --workdir=runs/… --input=vectors.npy --output=codes.npy
    python -m sigah_jax.encode --workdir=runs/… --input=queries.npy --output=codes_q.npy --queries

`--queries` makes codes of queries, to be compared with those of the base: see `hasher`.
`--queries=both` writes both codes of a query beside one another, `[n, 2 W]`: its own, and the one
that it would have as a base row, see `retrieval.both`.
The output is a `.npy` file of packed codes `[n, W] uint8` in the bit order of `numpy.packbits`,
and faiss's binary indexes take them as they are. `codes.npy.json` beside it says what they are:
the input and a fingerprint of its content, the hash of the encoder, the bits, how codes were
refined, if they were, whether rows are of the base, queries or may be both, how many there are,
their CRC-32, and which of them are bad and have no code; of the inner product also the length of
the longest row, and a line says so if no row of training was that long. `sigah_jax.search` reads
it, so keep them together. After an interruption or a kill the same command resumes where it
stopped.

Shapes: n rows, d columns, W packed bytes.

Not responsible for how a row becomes a code (`hasher`), for formats of vectors (`formats.vectors`)
nor for what a stopped run leaves (`resumable`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from sigah_jax.data.datasets import open_file
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.errors import BadInput, command
from sigah_jax.files import progress, resumable, whole
from sigah_jax.files.regular import fingerprint
from sigah_jax.formats.raw import row_blocks
from sigah_jax.formats.vectors import Vectors, check_unchanged, why_bad
from sigah_jax.retrieval import codes, metric
from sigah_jax.run import loading

_SAVE_EVERY_SECS = 2


def encode_file(
    h: Hasher,
    name: str,
    path: Path,
    overwrite: bool,
    skip_bad: bool,
    kind: str = "base",
    refine: float | None = None,
) -> tuple[int, int]:
    """Writes the codes of all rows of a file to `path`, which appears whole or not at all.

    `<path>.json` says of what they are, see `read_facts`. Memory is that of one block of rows,
    whatever n is, for formats that are read by rows.

    Args:
        name: the file of vectors; `my.hdf5:train` for one array in it.
        overwrite: replaces an output, and a partial one of other vectors or another encoder.
        skip_bad: rows with NaN or infinity get codes of zeros, so that code i stays that of row
            i, and `<path>.json` lists their numbers.
        kind: what the rows are, as in `Hasher.encode_blocks`.
        refine: as in `Hasher.encode`.

    Returns:
        (number of rows, number of bad rows).

    Raises:
        BadInput: another d; a `path` that is the file of vectors, also by a link; a bad row
            without `skip_bad`, or an input that changed meanwhile, nothing is left then; and as
            `resumable.open_output`.
    """
    v = open_file(name)
    n = v.shape[0]
    if v.shape[1] != h.d:
        raise BadInput(f"{v.path}: d={v.shape[1]}, this hasher was trained on d={h.d}")
    if path.exists() and path.samefile(v.path):
        raise BadInput(f"{path}: is the file of vectors itself; choose another --output")
    content = fingerprint(v.file)
    of = {
        "input": os.path.abspath(os.path.expanduser(name)),
        **content,
        "encoder": h.describe()["encoder"],
        "bits": h.bits,
        "rows_are": kind,
        "skip_bad": skip_bad,
    }
    how = h.refined(refine if kind == "base" else 0)
    if not h.query_head and not how.mu and kind in ("base", "queries"):
        of["rows_are"] = "both"
    if how.mu:
        of |= {"refine": how.mu, "refine_iterations": how.iterations}
    width = codes.packed_bytes(h.bits)
    shape = (n, 2 * width if kind == "both codes of queries" else width)
    with resumable.open_output(path, shape, of, overwrite) as out:
        # a stop may fall between the numbers of a block and its codes
        out.state["bad"] = [i for i in out.state.get("bad", ()) if i < out.state["rows"]]
        try:
            _append_codes(h, v, kind, out)
            check_unchanged(v, content)
        except KeyboardInterrupt:
            resumable.save(out)
            raise
        except BadInput:
            if out.state["rows"] in (0, n):  # all are there, but the input has changed
                resumable.discard(out)
            raise
        resumable.save(out)
        resumable.finish(out)
        return n, len(out.state["bad"])


def _append_codes(h: Hasher, v: Vectors, kind: str, out: resumable.Output) -> None:
    """Writes the codes that are not there yet; saves now and then."""
    first, n, saved = out.state["rows"], v.shape[0], time.monotonic()

    def read(start: int, stop: int) -> np.ndarray:
        x = v.read(start, stop)
        if h.metric.added and kind == "base":
            out.state["longest"] = max(out.state.get("longest", 0.0), metric.longest(x))
        return x

    with progress.showing(out.path.name, first, n, "row") as show:
        refine = out.state["of"].get("refine", 0.0)
        for start, packed, good in h.encode_blocks(read, first, n, kind, refine):
            bad = (start + np.flatnonzero(~good)).tolist()
            if bad and not out.state["of"]["skip_bad"]:
                resumable.discard(out)
                reason = why_bad(v.read(bad[0], bad[0] + 1)[0], bad[0])
                raise BadInput(f"{v.path}: {reason}, or use --skip_bad")
            out.state["bad"] += bad
            resumable.append(out, packed)
            show(out.state["rows"])
            if time.monotonic() - saved > _SAVE_EVERY_SECS:
                resumable.save(out)
                saved = time.monotonic()


def told_of_longer(h: Hasher, path: Path) -> str:
    """A line for people if rows of the file of codes `path` are longer than those of training."""
    longest = whole.read_json(resumable.beside(path, ".json"), "encode anew").get("longest", 0.0)
    if longest <= h.metric.largest:
        return ""
    return (
        f"\n{path}: the longest row has length {longest:.6g}, that of training "
        f"{h.metric.largest:.6g}; by its code a longer row ranks too low, re-ranked it is exact"
    )


def read_facts(name: str, packed: np.ndarray) -> dict | None:
    """What is known of a file of codes; None if `encode_file` did not write it.

    Args:
        name: the file of codes.
        packed: the codes in it, `[n, W] u1`; all are read, to compare their CRC-32.

    Returns:
        {"encoder": hash, "bits": K, "rows_are": as in `Hasher.encode_blocks`, or "both" where base
        rows and queries share a hash function, "refine": μ or 0, "bad": `[b] i64` rising numbers
        of the rows without a code}.

    Raises:
        BadInput: `<name>.json` is damaged or is about other codes.
    """
    path = resumable.beside(Path(os.path.expanduser(name)), ".json")
    try:
        state = whole.read_json(path, "encode anew")
    except FileNotFoundError:
        return None
    try:
        facts = {field: state["of"][field] for field in ("encoder", "bits", "rows_are")}
        facts["refine"] = state["of"].get("refine", 0.0)
        facts["bad"] = _row_numbers(state["bad"], len(packed))
        width = codes.packed_bytes(facts["bits"])
        twice = facts["rows_are"] == "both codes of queries"
        shape = (state["rows"], 2 * width if twice else width)
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise BadInput(
            f"{path}: cannot be read as what `encode` leaves beside {name} ({e}); encode anew"
        ) from e
    if shape != packed.shape:
        raise BadInput(
            f"{path}: is about {shape[0]} codes of {shape[1]} bytes, {name} holds "
            f"{packed.shape[0]} of {packed.shape[1]}; encode anew, or remove it if the codes come "
            "from elsewhere"
        )
    crc32 = 0
    for start, stop in row_blocks(packed.shape, 1):
        crc32 = resumable.rows_crc32(packed[start:stop], crc32)
    if crc32 != state.get("rows_crc32", crc32):  # earlier versions wrote none
        raise BadInput(
            f"{path}: is about codes whose CRC-32 differs from that of {name}, which is damaged or "
            "was replaced; encode anew, or remove it if the codes come from elsewhere"
        )
    return facts


def _row_numbers(bad: list[int], n: int) -> np.ndarray:
    """`[b] i64`; ValueError unless they are rising numbers of n rows."""
    rows = np.array(bad, np.int64)
    rising = rows.ndim == 1 and (np.diff(rows, prepend=-1, append=n) > 0).all()
    if not rising or rows.tolist() != bad:
        raise ValueError("its bad rows are not rising row numbers")
    return rows


@command("the same command resumes where it stopped")
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input or a full disk, 130 interrupted."""
    parser = argparse.ArgumentParser(description="Writes the codes of a file of vectors.")
    parser.add_argument(
        "--workdir", required=True, type=Path, help="run directory, or an encoder's .npz file"
    )
    parser.add_argument("--input", required=True, help="file of vectors, or FILE.hdf5:NAME")
    parser.add_argument("--output", required=True, type=Path, help="a .npy file to write")
    parser.add_argument(
        "--checkpoint", default="best", help="which checkpoint of the run: best, latest or a step"
    )
    parser.add_argument(
        "--queries",
        nargs="?",
        const="own",
        choices=("own", "both"),
        help="the vectors are queries; =both adds the codes that they would have as base rows",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace --output if it exists")
    parser.add_argument(
        "--skip_bad", action="store_true", help="write zeros for rows with NaN, and list them"
    )
    parser.add_argument(
        "--refine",
        type=float,
        metavar="MU",
        help="refine codes: flip bits that bring the synthetic feature nearer to its row, each at "
        "a cost of MU |u|; 0: no refinement, which is much faster; default: what training chose",
    )
    args = parser.parse_args(argv)
    args.output = Path(os.path.expanduser(args.output))
    if args.output.suffix != ".npy":
        raise BadInput(f"--output={args.output}: codes are a .npy file; end its name so")
    if args.refine is not None and (args.queries or not 0 <= args.refine < np.inf):
        raise BadInput(f"--refine={args.refine}: expected μ, 0 or more, and no --queries")
    h = loading.load(args.workdir, args.checkpoint)
    kinds = {None: "base", "own": "queries", "both": "both codes of queries"}
    how = args.overwrite, args.skip_bad, kinds[args.queries], args.refine
    n, bad = encode_file(h, args.input, args.output, *how)
    skipped = f"; {bad} bad rows have zeros and are listed in {args.output}.json" if bad else ""
    longer = told_of_longer(h, args.output)
    print(f"{args.output}: {n} codes of {h.bits} bits{skipped}{longer}")


if __name__ == "__main__":
    sys.exit(main())
