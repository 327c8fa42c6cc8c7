"""Whether rows are still like those that an encoder was trained on.

Each row is compared with what the decoder makes of its code; r = ‖x - x̂‖² / a², a² the variance of
the training rows, is what a code loses of it, also outside of the P principal directions:
r = ‖z - ẑ‖² + (‖x - x̄‖² / a² - ‖z‖²). Rows that were held out from training give the measure of it.
Where queries are at hand, the recall of a search by codes says it more directly.

Shapes: n rows, Q queries, d columns, K bits, W packed bytes, P features.

ours. Not responsible for which rows are held out (`training.run`) nor for files
(`sigah_jax.check`).
"""

import math
from typing import NamedTuple

import numpy as np

from sigah_jax.encoder import searching
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.retrieval import evenly, neighbours
from sigah_jax.retrieval.metric import base_rows

USUAL = 0.99  # the share of held-out rows whose r is at most `Figures.limit`
FAR = 1.5  # a row is far if r is more than this many times the limit
MOST_FAR = 0.05  # of the rows; of held-out rows nearly none is
MOST_LOST = 1.5  # times the share of variance that codes of held-out rows lose
EQUAL = 1e-12  # variance, in units of a², of rows that float32 does not tell apart
NEAREST = 10  # neighbours of a query that are searched
SIZES = (100, 316, 1000, 3162, 10_000)  # rows among which; recall falls evenly in their logarithm
LEAST_RECALL = 0.9  # times that of validation queries among training rows


class Figures(NamedTuple):
    """Figures of some rows and their codes; squared lengths in units of a², that of training."""

    rows: int  # n
    error: float  # mean ‖z - ẑ‖²
    outside: float  # mean squared length outside of the P directions
    spread: float  # mean squared distance to the training mean; 1 in training
    shift: float  # ‖mean of z‖, how far the mean has moved; 0 in training
    imbalance: float  # mean |2 p - 1| over bits, p the share of rows where a bit is set
    refined: float  # the share of bits that refinement flips
    # mean r over the variance of the rows, or of the training rows where these are all equal;
    # without far ones unless most are far
    lost: float
    far: float  # the share of far rows
    limit: float  # the quantile `USUAL` of r


def figures(h: Hasher, x: np.ndarray, held_out: Figures | None = None) -> Figures:
    """The figures of rows `[n, d]`, n >= 1.

    Args:
        held_out: the figures whose limit tells which rows are far; None: those of x itself.

    Raises:
        BadInput: as `Hasher.encode`.
    """
    x, h = base_rows(h.metric, h.check(x)), h.euclidean
    packed, plain = h.encode(x), h.encode(x, refine=0)
    z, z_hat = (a.astype(np.float64) for a in (h.features(x), h.decode(packed)))
    mean, projection = (h.params["standardiser"][name] for name in ("mean", "projection"))
    a2 = 1 / np.mean(np.sum(np.asarray(projection, np.float64) ** 2, axis=0))
    distances = np.sum((np.asarray(x, np.float64) - mean) ** 2, axis=1) / a2
    outside = np.maximum(distances - np.sum(z**2, axis=1), 0)  # not negative by rounding
    if z.shape[1] == h.d:
        outside[:] = 0
    errors = np.sum((z - z_hat) ** 2, axis=1)
    r = errors + outside
    limit = np.quantile(r, USUAL)
    far = r > FAR * (held_out.limit if held_out else limit)
    near = ~far if far.mean() <= 0.5 else np.ones(len(x), bool)
    variance = z[near].var(axis=0).sum() + outside[near].mean()
    balance = np.unpackbits(packed, axis=1, count=h.bits).mean(axis=0)
    found = {
        "error": errors.mean(),
        "outside": outside.mean(),
        "spread": distances.mean(),
        "shift": np.linalg.norm(z.mean(axis=0)),
        "imbalance": np.abs(2 * balance - 1).mean(),
        "refined": np.bitwise_count(packed ^ plain).sum() / (len(x) * h.bits),
        "lost": r[near].mean() / (variance if variance > EQUAL else 1.0),
        "far": far.mean(),
        "limit": limit,
    }
    return Figures(len(x), **{name: float(value) for name, value in found.items()})


def reference(h: Hasher) -> Figures | None:
    """The figures of rows held out from the training of h; None if it was saved without them.

    Earlier versions kept those of equal rows too, of whose variance an infinite share was lost.
    """
    held = h.facts.get("reference")
    return Figures(**held) if held and math.isfinite(held["lost"]) else None


def advice(found: Figures, held_out: Figures) -> tuple[bool, str]:
    """Whether to train anew, and a sentence that says so and what it rests on.

    Rows that are unlike those of training are far. Rows that have become more alike need not be,
    but their codes tell less of what is left of their differences.
    """
    lost = found.lost / held_out.lost
    anew = found.far > MOST_FAR or lost > MOST_LOST
    what = "train anew, and encode all rows by the new encoder" if anew else "keep the encoder"
    others = "the others" if found.far <= 0.5 else "all of them"
    return anew, (
        f"{what}: {found.far:.1%} of the rows lose more than {FAR} times what {USUAL:.0%} of the "
        f"held-out rows lose at most (limit {MOST_FAR:.0%}), and {others} lose {lost:.2f} times as "
        f"large a share of their variance as held-out rows (limit {MOST_LOST})"
    )


def recall(h: Hasher, xq: np.ndarray, xb: np.ndarray, packed: np.ndarray, engine: str) -> float:
    """The share of the `NEAREST` rows of queries that `searching.search` finds by codes alone.

    Args:
        xq: `[Q, d'] f32`; xb: `[n, d'] f32`: points that `retrieval.metric` makes of the rows.
        packed: `[n, W] u1`, the codes of xb.
        engine: as in `euclidean.knn`.
    """
    found = searching.search(h.euclidean, xq, packed, NEAREST, engine=engine)[1]
    truth = neighbours.nearest_sets(xq, xb, (NEAREST,), engine)
    return neighbours.recall(xq, xb, found, truth)


def recall_by_rows(
    h: Hasher, xq: np.ndarray, xb: np.ndarray, packed: np.ndarray, engine: str
) -> dict[str, float]:
    """`recall` among so many of the rows as each of `SIZES`, taken evenly, by that number."""
    found = {}
    for size in (size for size in SIZES if size <= len(xb)):
        found[f"{size}"] = recall(h, xq, evenly.of(xb, size), evenly.of(packed, size), engine)
    return found


def advice_of_recall(
    found: float, rows: int, queries: int, held_out: dict[str, float]
) -> tuple[bool, str]:
    """Whether to train anew, and a sentence that says so, by what queries find.

    Args:
        found: `recall` of so many queries among so many rows, between the numbers of `held_out`.
        held_out: returned by `recall_by_rows` of validation queries and training rows.
    """
    sizes = np.log([int(size) for size in held_out])
    usual = float(np.interp(math.log(rows), sizes, list(held_out.values())))
    anew = found < LEAST_RECALL * usual
    what = "train anew, and encode all rows by the new encoder" if anew else "keep the encoder"
    return anew, (
        f"{what}: {queries} queries find {found:.1%} of the {NEAREST} nearest of {rows} rows by "
        f"their codes, validation queries found {usual:.1%} among as many rows of the training: "
        f"{found / usual:.2f} times as much (limit {LEAST_RECALL})"
    )
