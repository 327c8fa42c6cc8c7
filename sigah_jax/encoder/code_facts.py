"""What is known of a file of codes: the `.json` that `sigah_jax.encode` leaves beside it.

Codes may have been appended, and then the file has parts, one of each input. The `.json` is about
all of them, and is written before the codes are replaced: codes of the parts up to an earlier one
fit it too, and the facts are then those of these rows.

Shapes: n rows, W packed bytes, K bits, b bad rows.

Not responsible for writing it (`sigah_jax.encode`, `files.resumable`).
"""

import os
from bisect import bisect_left
from pathlib import Path

import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.files import resumable, whole
from sigah_jax.formats.raw import row_blocks
from sigah_jax.retrieval import codes

SOURCE = ("input", "bytes", "modified_ns", "content")  # fields of a part that tell its input


def beside_codes(name: str, suffix: str) -> Path:
    """What is beside a file of codes, wherever a symbolic link to it may be."""
    path = Path(os.path.expanduser(name))
    return resumable.beside(path.resolve() if path.is_symlink() else path, suffix)


def read_facts(name: str, packed: np.ndarray) -> dict | None:
    """What is known of a file of codes; None if `encode` did not write it.

    Args:
        name: the file of codes; by a symbolic link it is that of the file itself.
        packed: the codes in it, `[n, W] u1`; all are read, to compare their CRC-32.

    Returns:
        {"encoder": hash, "metric": its name, None if an earlier version wrote the facts, "bits": K,
        "rows_are": as in `Hasher.encode_blocks`, or "both" where base rows and queries share a hash
        function, "refine": μ or 0, "refine_iterations": 0 without,
        "bad": `[b] i64` rising numbers of the rows without a code, "longest": the length of the
        longest row of all parts where the metric asks for it, else 0, "parts": of each input {the
        fields of `SOURCE`, "rows": one past its last, "rows_crc32": of all up to there}}.

    Raises:
        BadInput: `<name>.json` is damaged or is about other codes.
    """
    path = beside_codes(name, ".json")
    try:
        state = whole.read_json(path, "encode anew")
    except FileNotFoundError:
        return None
    try:
        of = state["of"]
        facts = {field: of[field] for field in ("encoder", "bits", "rows_are")}
        facts |= {field: of.get(field, 0) for field in ("refine", "refine_iterations")}
        facts["metric"] = of.get("metric")
        parts = [*state.get("earlier", ()), _part(state)]
        parts = [part for part in parts if part["rows"] <= len(packed)] or parts
        rows, crc32 = parts[-1]["rows"], parts[-1]["rows_crc32"]
        bad = state["bad"] if rows == state["rows"] else [i for i in state["bad"] if i < rows]
        facts["bad"] = _row_numbers(bad, rows)
        facts["longest"] = float(state.get("longest", 0.0))
        shape = (rows, codes.row_bytes(facts["bits"], facts["rows_are"]))
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
    found = 0
    for start, stop in row_blocks(packed.shape, 1):
        found = resumable.rows_crc32(packed[start:stop], found)
    if crc32 not in (found, None):
        raise BadInput(
            f"{path}: is about codes whose CRC-32 differs from that of {name}, which is damaged or "
            "was replaced; encode anew, or remove it if the codes come from elsewhere"
        )
    parts[-1]["rows_crc32"] = found
    return facts | {"parts": parts}


def _part(state: dict) -> dict:
    """The last part of the codes that a state is about."""
    of = state["of"]
    source = {field: of[field] for field in SOURCE if field in of}
    # earlier versions wrote no CRC-32
    return source | {"rows": state["rows"], "rows_crc32": state.get("rows_crc32")}


def rows_of(parts: list[dict], source: dict) -> tuple[int, int] | None:
    """The first row of the part whose input is `source`, and one past its last; or None."""
    first = 0
    for part in parts:
        if all(part.get(field) == source[field] for field in SOURCE):
            return first, part["rows"]
        first = part["rows"]
    return None


def within(numbers: list[int], first: int, stop: int) -> int:
    """How many of some rising row numbers are from `first` to `stop` - 1."""
    return bisect_left(numbers, stop) - bisect_left(numbers, first)


def _row_numbers(bad: list[int], n: int) -> np.ndarray:
    """`[b] i64`; ValueError unless they are rising numbers of n rows."""
    rows = np.array(bad, np.int64)
    rising = rows.ndim == 1 and (np.diff(rows, prepend=-1, append=n) > 0).all()
    if not rising or rows.tolist() != bad:
        raise ValueError("its bad rows are not rising row numbers")
    return rows
