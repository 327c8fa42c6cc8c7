"""Encodes a file of vectors:

    python -m sigah_jax.encode --workdir=runs/… --input=vectors.npy --output=codes.npy
    python -m sigah_jax.encode --workdir=runs/… --input=queries.npy --output=codes_q.npy --queries

    python -m sigah_jax.encode --workdir=runs/… --input=more.npy --output=codes.npy --append

`--append` adds the codes of new rows after those that are there; see `encode_file`.
`--queries` makes codes of queries, to be compared with those of the base: see `hasher`.
`--queries=both` writes both codes of a query beside one another, `[n, 2 W]`: its own, and the one
that it would have as a base row, see `retrieval.both`.
The output is a `.npy` file of packed codes `[n, W] uint8` in the bit order of `numpy.packbits`,
and faiss's binary indexes take them as they are. `codes.npy.json` beside it says what they are:
the input and a fingerprint of its content, the hash of the encoder, its metric, the bits, how
codes were refined, if they were, whether rows are of the base, queries or may be both, how many
there are, their CRC-32, and which of them are bad and have no code; of the inner product also the
length of the longest row, and a line says so if no row of training was that long.
`sigah_jax.search` reads it, so keep them together. After an interruption or a kill the same
command resumes where it stopped.

Shapes: n rows, d columns, W packed bytes.

Not responsible for how a row becomes a code (`hasher`), for formats of vectors (`formats.vectors`),
for what is known of a file of codes (`code_facts`) nor for what a stopped run leaves (`resumable`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax.command_line import Parser, add_encoder, command
from sigah_jax.encoder import code_facts
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.errors import BadInput
from sigah_jax.files import progress, resumable, whole
from sigah_jax.files.regular import fingerprint
from sigah_jax.formats.raw import row_blocks
from sigah_jax.formats.vectors import Vectors, as_array, check_unchanged, open_file
from sigah_jax.retrieval import codes, evenly, metric
from sigah_jax.retrieval.bad_rows import why_bad
from sigah_jax.run import loading

_SAVE_EVERY_SECS = 2
_COMPARED = 100  # rows of an input that is appended, with those of the inputs before it


class Encoded(NamedTuple):
    """What `encode_file` did."""

    first: int  # the row number of the first code in the output
    stop: int  # one past the last
    bad: int  # rows among them that are bad
    before: bool  # the codes of this input were there, and nothing was written


def encode_file(
    h: Hasher,
    name: str,
    path: Path,
    overwrite: bool,
    skip_bad: bool,
    kind: str = "base",
    refine: float | None = None,
    append: bool = False,
) -> Encoded:
    """Writes the codes of all rows of a file to `path`, which appears whole or not at all.

    `<path>.json` says of what they are, see `read_facts`. Memory is that of one block of rows,
    whatever n is, for formats that are read by rows.

    Args:
        name: the file of vectors; `my.hdf5:train` for one array in it.
        overwrite: replaces an output, and a partial one of other vectors or another encoder; with
            `append`, the partial one only.
        skip_bad: rows with NaN or infinity get codes of zeros, so that code i stays that of row
            i, and `<path>.json` lists their numbers.
        kind: what the rows are, as in `Hasher.encode_blocks`.
        refine: as in `Hasher.encode`.
        append: adds the codes to those in `path`, which keep their row numbers and must be of this
            encoder, kind and refinement. They are copied into a new file, which takes the place of
            the old one when it is whole: at any moment `path` holds the old codes or all. An input
            whose codes are there is not added a second time.

    Raises:
        BadInput: another d; a `path` that is the file of vectors, also by a link; a bad row
            without `skip_bad`, or an input that changed meanwhile, nothing is left then; codes
            that cannot be appended to; an input that begins with all rows of one whose codes are
            there; and as `resumable.open_output`.
    """
    v = open_file(name)
    n = v.shape[0]
    if v.shape[1] != h.d:
        raise BadInput(f"{v.path}: d={v.shape[1]}, this hasher was trained on d={h.d}")
    if append and path.is_symlink():
        raise BadInput(f"{path}: is a symbolic link; give the file itself as --output")
    if path.exists() and path.samefile(v.path):
        raise BadInput(f"{path}: is the file of vectors itself; choose another --output")
    content = fingerprint(v.file)
    source = {"input": os.path.abspath(os.path.expanduser(name)), **content}
    told = h.describe()
    made = {field: told[field] for field in ("encoder", "metric", "bits")} | {"rows_are": kind}
    how = h.refined(refine if kind == "base" else 0)
    alike = not (h.query_head or how.mu or h.metric.added)
    if alike and kind in ("base", "queries"):
        made["rows_are"] = "both"
    if how.mu:
        made |= {"refine": how.mu, "refine_iterations": how.iterations}
    of = {**source, **made, "skip_bad": skip_bad}
    width = codes.row_bytes(h.bits, kind)
    first, old, ended = 0, None, resumable.ended(path)
    if append:
        old = _appended_to(path, made)
        first = len(old.packed)
        if rows := code_facts.rows_of(old.parts, source):
            return Encoded(*rows, code_facts.within(old.bad, *rows), before=True)
        _check_new(h, v, kind, how.mu, old, path)
        of |= {"after_rows": first, "after_crc32": old.parts[-1]["rows_crc32"]}
    elif ended and ended["of"] == of:
        return Encoded(0, n, len(ended["bad"]), before=True)
    with resumable.open_output(path, (first + n, width), of, overwrite, append) as out:
        # a stop may fall between the numbers of a block and its codes
        bad = [i for i in out.state.get("bad", ()) if first <= i < out.state["rows"]]
        out.state["bad"] = old.bad + bad if append else bad
        try:
            if append:
                check_unchanged(old.vectors, old.content)  # until the lock was there
                out.state["earlier"] = old.parts
                if h.metric.added:
                    out.state["longest"] = max(old.longest, out.state.get("longest", 0.0))
                _copy(old.packed, out)
            _append_codes(h, v, kind, first, out)
            check_unchanged(v, content)
        except KeyboardInterrupt:
            resumable.save(out)
            raise
        except BadInput:
            # none is there, or all are, but the input has changed
            if out.state["rows"] <= first or out.state["rows"] == first + n:
                resumable.discard(out)
            raise
        resumable.save(out)
        resumable.finish(out, append)
        bad = code_facts.within(out.state["bad"], first, first + n)
        return Encoded(first, first + n, bad, before=False)


class _Old(NamedTuple):
    """The codes that are appended to."""

    packed: np.ndarray  # [n, W] u1
    parts: list[dict]  # see `code_facts`
    bad: list[int]
    longest: float  # row, where the metric asks for it
    vectors: Vectors  # the file of the codes
    content: dict  # its fingerprint


def _appended_to(path: Path, made: dict) -> _Old:
    """The codes in `path`; BadInput unless `made` is what they were made by."""
    if not path.exists():
        raise BadInput(f"--append: {path} is not there; leave --append out, then it is made")
    v = open_file(str(path))
    content = fingerprint(v.file)
    packed = as_array(v)
    facts = code_facts.read_facts(str(path), packed)
    if facts is None:
        raise BadInput(
            f"--append: {path}.json is missing, so nothing tells which encoder made {path}; "
            "encode all rows anew"
        )
    for field in ("encoder", "metric", "bits", "rows_are", "refine", "refine_iterations"):
        theirs, ours = facts[field], made.get(field, 0)
        if theirs not in (ours, None):
            raise BadInput(
                f"--append: {path} holds codes of {field} {theirs}, these would be of {ours}; give "
                "the encoder and the flags that it was made with, or encode all rows anew"
            )
    return _Old(packed, facts["parts"], facts["bad"].tolist(), facts["longest"], v, content)


def _check_new(h: Hasher, v: Vectors, kind: str, refine: float, old: _Old, path: Path) -> None:
    """Raises BadInput if v begins with the rows of a part of `old`, as far as their codes tell.

    Compared are the first rows and, where these are equal, others evenly among all of the part.
    """
    if v.shape[0] < _COMPARED:  # a few rows may be equal by chance
        return

    def codes_of(x: np.ndarray) -> np.ndarray:
        read = lambda i, j: x[i:j]  # noqa: E731
        blocks = h.encode_blocks(read, 0, len(x), kind, refine)
        return np.concatenate([packed for _, packed, _ in blocks])

    def has_all(there: np.ndarray) -> bool:
        rows = evenly.rows(len(there), _COMPARED)
        return np.array_equal(
            codes_of(np.concatenate([v.read(row, row + 1) for row in rows])), there[rows]
        )

    first, begin = 0, codes_of(v.read(0, _COMPARED))
    for part in old.parts:
        stop, there = part["rows"], old.packed[first : part["rows"]]
        alike = np.array_equal(begin, there[:_COMPARED]) and len(there) <= v.shape[0]
        if alike and has_all(there):
            raise BadInput(
                f"{v.path}: begins with the rows whose codes are rows {first} to {stop - 1} of "
                f"{path}, and would add them again; give a file of the new rows alone"
            )
        first = stop


def _copy(packed: np.ndarray, out: resumable.Output) -> None:
    """Writes the codes `[n, W] u1` that the output begins with, as far as they are not there."""
    for start, stop in row_blocks(packed.shape, 1):
        if stop > out.state["rows"]:
            resumable.append(out, packed[max(start, out.state["rows"]) : stop])


def _append_codes(h: Hasher, v: Vectors, kind: str, first: int, out: resumable.Output) -> None:
    """Writes the codes of v that are not there yet, after the `first`; saves now and then."""
    begun, n, saved = out.state["rows"] - first, v.shape[0], time.monotonic()

    def read(start: int, stop: int) -> np.ndarray:
        x = v.read(start, stop)
        if h.metric.added and kind == "base":
            out.state["longest"] = max(out.state.get("longest", 0.0), metric.longest(x))
        return x

    with progress.showing(out.path.name, begun, n, "row") as show:
        refine = out.state["of"].get("refine", 0.0)
        for start, packed, good in h.encode_blocks(read, begun, n, kind, refine):
            bad = start + np.flatnonzero(~good)
            if len(bad) and not out.state["of"]["skip_bad"]:
                resumable.discard(out)
                reason = why_bad(v.read(bad[0], bad[0] + 1)[0], bad[0])
                raise BadInput(f"{v.path}: {reason}, or use --skip_bad")
            out.state["bad"] += (first + bad).tolist()
            resumable.append(out, packed)
            show(out.state["rows"] - first)
            if time.monotonic() - saved > _SAVE_EVERY_SECS:
                resumable.save(out)
                saved = time.monotonic()


def told_of_longer(h: Hasher, path: Path, longest: float) -> str:
    """A line for people if codes in `path` are of rows longer than those of training.

    Args:
        longest: the length of the longest, 0 where the metric does not ask for it.
    """
    if longest <= h.metric.largest:
        return ""
    return (
        f"\n{path}: the longest row has length {longest:.6g}, that of training "
        f"{h.metric.largest:.6g}; by its code a longer row ranks too low, re-ranked it is exact"
    )


@command("the same command resumes where it stopped")
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input or a full disk, 130 interrupted."""
    parser = Parser(description="Writes the codes of a file of vectors.")
    add_encoder(parser)
    parser.add_argument("--input", required=True, help="file of vectors, or FILE.hdf5:NAME")
    parser.add_argument("--output", required=True, type=Path, help="a .npy file to write")
    parser.add_argument(
        "--queries",
        nargs="?",
        const="own",
        choices=("own", "both"),
        help="the vectors are queries; =both adds the codes that they would have as base rows",
    )
    parser.add_argument(
        "--append",
        action="store_true",
        help="add the codes to those in --output, which the same encoder made",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace --output if it exists; with --append, what another command left unfinished",
    )
    parser.add_argument(
        "--skip_bad",
        action="store_true",
        help="write zeros for rows without a code (NaN; zeros under cosine), list them",
    )
    parser.add_argument(
        "--refine",
        type=float,
        metavar="MU",
        help="refine codes: flip bits that bring the synthetic feature nearer to its row, each at "
        "a cost of MU |u| / |z|^4; 0: no refinement, which is much faster; default: what training "
        "chose",
    )
    args = parser.parse_args(argv)
    args.output = Path(os.path.expanduser(args.output))
    if args.output.suffix != ".npy":
        raise BadInput(f"--output={args.output}: codes are a .npy file; end its name so")
    if args.refine is not None and (args.queries or not 0 <= args.refine < np.inf):
        raise BadInput(f"--refine={args.refine}: expected μ, 0 or more, and no --queries")
    h = loading.load(args.workdir, args.checkpoint)
    kinds = {None: "base", "own": "queries", "both": codes.BOTH}
    how = args.overwrite, args.skip_bad, kinds[args.queries], args.refine, args.append
    done = encode_file(h, args.input, args.output, *how)
    n = done.stop - done.first
    what = f"{n} codes of {h.bits} bits"
    if done.before:
        rows = f"rows {done.first} to {done.stop - 1}"
        what = f"holds the codes of {args.input} as {rows}; nothing was added"
    elif args.append:
        what = f"{n} codes added as rows {done.first} to {done.stop - 1}"
    skipped = f"; {done.bad} bad rows have zeros and are listed in {args.output}.json"
    state = whole.read_json(resumable.beside(args.output, ".json"), "encode anew")
    longer = told_of_longer(h, args.output, state.get("longest", 0.0))
    print(f"{args.output}: {what}{skipped if done.bad else ''}{longer}")


if __name__ == "__main__":
    sys.exit(main())
