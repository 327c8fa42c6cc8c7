"""Files of a search: codes, queries and vectors, which are refused unless they belong together.

Codes of the base and of queries must come from one encoder, which the facts beside a file of codes
name. Vectors to re-rank by must be those that the codes were made of. Errors name the flags of
`sigah_jax.search`.

Shapes: n codes, Q queries, W packed bytes, d columns, b bad rows, s rows of a subset.

Not responsible for the facts themselves (`code_facts`) nor for the search (`searching`).
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax.encoder import code_facts
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.errors import BadInput
from sigah_jax.files.regular import open_regular
from sigah_jax.formats.opened import reading_as
from sigah_jax.formats.vectors import read_file
from sigah_jax.retrieval import codes, evenly, gaps

SAMPLE_ROWS = 16  # encoded to see whether codes and vectors belong together
ENDING_SECS = 1  # more than `encode` needs between replacing its facts and its codes
# of their bits: another device rounds otherwise, an earlier version refines otherwise, and another
# file differs in half
MOST_WRONG = 0.1


class Base(NamedTuple):
    """The codes of a base, and which of them are searched."""

    name: str  # of their file
    packed: np.ndarray  # [n, W] u1, memory-mapped where their format allows
    facts: dict | None  # as `code_facts.read_facts` returns them
    bad: np.ndarray  # [b] i64, rising: rows that have no code
    subset: np.ndarray | None  # [s] i64, rising: the rows to search in; None: all that have a code

    @property
    def rows(self) -> int:
        """How many rows are searched."""
        return len(self.packed) - len(self.bad) if self.subset is None else len(self.subset)


def read_base(name: str, only: str | None) -> Base:
    """The codes in the file of `--codes`, of which those in the file `only` are searched."""
    packed, facts = _read_codes("--codes", name)
    if facts and facts["rows_are"] not in ("base", "both"):
        raise BadInput(f"--codes={name}: are codes of queries; encode the base without --queries")
    bad = facts["bad"] if facts else np.empty(0, np.int64)
    return Base(name, packed, facts, bad, _read_subset(only, len(packed), bad) if only else None)


def read_query_codes(name: str, base: Base, by: str) -> tuple[np.ndarray, str]:
    """The codes in the file of `--queries`, and a line for people if their encoder is not known.

    Args:
        by: "hamming" for codes `[Q, W] u1`, "both" for `[Q, 2 W] u1`.
    """
    packed, facts = _read_codes("--queries", name)
    if facts and facts["rows_are"] == "base":
        raise BadInput(
            f"--queries={name}: are codes of a base; encode queries with --queries, or "
            "give their vectors and --workdir"
        )
    note = _check_encoder(base, name, facts)
    if facts and len(facts["bad"]):
        raise BadInput(
            f"--queries={name}: row {facts['bad'][0]} was bad and has no code; "
            "leave such rows out of the file before it is encoded"
        )
    width = base.packed.shape[1]
    wanted = (1 + (by == "both")) * width
    if packed.shape[1] != wanted:
        raise BadInput(
            f"--queries={name}: codes of {packed.shape[1]} bytes, --by={by} of "
            f"codes of {width} takes {wanted}; encode the queries by the run of --codes, "
            "with --queries, or with --queries=both for --by=both"
        )
    return packed, note


def check_run(base: Base, workdir: Path, h: Hasher) -> str:
    """Refuses codes that another encoder than that of a run made; returns as `_check_encoder`."""
    note = _check_encoder(base, str(workdir), h.describe())
    if base.packed.shape[1] != codes.packed_bytes(h.bits):
        raise BadInput(
            f"--codes={base.name}: codes of {base.packed.shape[1]} bytes, {workdir} makes codes of "
            f"{h.bits} bits; encode them by this run"
        )
    return note


def read_vectors(flag: str, name: str, workdir: Path, h: Hasher) -> np.ndarray:
    """The vectors `[any, d]` in a file, which must have the columns of the encoder of a run."""
    x = read_file(name)
    if x.shape[1] != h.d:
        raise BadInput(f"{flag}={name}: d={x.shape[1]}, {workdir} was trained on d={h.d}")
    return x


def read_originals(name: str, base: Base, workdir: Path, h: Hasher) -> np.ndarray:
    """The vectors `[n, d]` in the file of `--rerank`, of which some are encoded and compared."""
    x = read_vectors("--rerank", name, workdir, h)
    if len(x) != len(base.packed):
        raise BadInput(
            f"--rerank={name}: {len(x)} rows, but {base.name} holds {len(base.packed)} codes; "
            "give the file that was encoded"
        )
    if not base.rows:
        return x
    rows = evenly.rows(base.rows, SAMPLE_ROWS)
    # rows outside of the subset may be gone
    rows = gaps.present(rows, base.bad) if base.subset is None else base.subset[rows]
    sample = x[rows]
    read = lambda i, j: sample[i:j]  # noqa: E731
    # where nothing is known of them, codes are refined as by default, or plain, as exported
    # encoders make them
    for refine in (base.facts["refine"],) if base.facts else (None, 0):
        _, packed, good = next(h.encode_blocks(read, 0, len(rows), refine=refine))
        wrong = np.bitwise_count(packed ^ base.packed[rows[: len(packed)]])[good].sum()
        if wrong <= MOST_WRONG * h.bits * good.sum():
            return x
    raise BadInput(
        f"--rerank={name}: {base.name} does not hold the codes that {workdir} "
        "makes of its rows; give the file and the run that they were encoded with"
    )


def _read_codes(flag: str, name: str) -> tuple[np.ndarray, dict | None]:
    """Packed codes `[n, W] u1` and what is known of them.

    Where an `encode --overwrite` is ending, codes and facts of two versions may be read, or none
    be there for a moment: then both are read once more.
    """
    ending = code_facts.beside_codes(name, ".partial").exists()
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


def _check_encoder(base: Base, other: str, facts: dict | None) -> str:
    """Refuses codes of two encoders; returns a line for people if one is not known.

    Args:
        other: the run directory or the file of the queries.
        facts: its "bits", "encoder" and "metric"; None if they are not known.
    """
    if not (base.facts and facts):
        name = other if base.facts else base.name
        return f"\n{name}: no {name}.json names the encoder of these codes; it was not checked"
    for field in ("bits", "encoder", "metric"):
        # earlier versions wrote no metric
        if base.facts[field] != facts[field] and None not in (base.facts[field], facts[field]):
            raise BadInput(
                f"--codes={base.name}: {base.name}.json names {field} {base.facts[field]}, "
                f"{other} has {facts[field]}; encode both by one run and checkpoint"
            )
    return ""
