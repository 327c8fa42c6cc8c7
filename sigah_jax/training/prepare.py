"""What training needs before its first step: standardised rows, graph, ground truth, and the state.

Shapes: nt training rows, nv validation queries, d columns, P features, K bits, k neighbours.

Not responsible for the training itself (`train`) nor for what is trained (`stages`).
"""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sigah_jax.config import batch_rows
from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import hosts, parallel
from sigah_jax.errors import BadInput
from sigah_jax.files.cache import cached
from sigah_jax.model import pca
from sigah_jax.model.keys import Purpose, key_for
from sigah_jax.model.rotation import rotate
from sigah_jax.model.standardise import init_standardiser, standardise
from sigah_jax.retrieval import approximate, euclidean, evenly
from sigah_jax.retrieval.metric import L2, are_unit, as_queries
from sigah_jax.run import logs
from sigah_jax.training import evaluate

# below it a share of rounding's size, one in 2²³, is not a normal float32 any more
LEAST_VARIANCE = float(np.finfo(np.float32).tiny / np.finfo(np.float32).eps)
SAMPLE = 2000  # rows that `growth` looks at
LEAST_RECALL = 0.95  # of an approximate graph, in a sample of rows


class Prepared(NamedTuple):
    """The training rows as every step sees them, and what they are validated by."""

    z_train: np.ndarray  # [nt, P] f32 standardised training set, on the host
    # [na, P] f32 the training queries, [nt, P] the training rows as queries, or None if these are
    # what the rows are
    z_queries: np.ndarray | None
    graph: np.ndarray | None  # [nt, k] i32, of na queries [na, k]
    validation_truth: np.ndarray  # [nv, k] i32
    neighbours: int  # N, positives of an anchor from the graph; 0 without one
    neighbour_weight: float  # of these together in the ordinal loss


def pool_rows(config) -> int:
    """How many rows there must be at least for training, and for validation queries among them."""
    t, queries = config.train, config.data.val_queries
    batch = max(batch_rows(t), t.graph_neighbours + 1)
    if config.data.queries_train:
        return batch
    return queries + max(queries, batch)


def check_data(config, data: Dataset, log: logs.Log) -> None:
    """Tells of the data set; BadInput if training cannot use its training rows.

    They may be too few for a batch or the graph, all equal, or so near to one another that
    squares of their differences vanish in float32.
    """
    nt, d = len(data.xt), data.xt.shape[1] - data.metric.added
    log.line(f"data: {data.origin}")
    held = {
        "training rows": nt,
        "training queries": 0 if data.xa is None else len(data.xa),
        "validation queries": len(data.xv),
        "base rows": len(data.xb),
        "test queries": len(data.xq),
        "columns": d,
    }
    log.line(", ".join(f"{count} {name}" for name, count in held.items() if count))
    log.line(f"metric: {metric_line(data)}")
    if data.warning:
        log.line(f"warning: {data.warning}")
    per_step = batch_rows(config.train)
    if per_step > nt:
        raise BadInput(
            f"config.train: a batch of {per_step} rows from a training set of {nt}; lower anchors"
        )
    if config.train.graph_neighbours >= nt:
        raise BadInput(f"config.train.graph_neighbours: expected less than the {nt} training rows")
    ranges = np.ptp(data.xt, axis=0).astype(np.float64)
    if not ranges.any():
        raise BadInput(f"data: the {nt} training rows are all equal; check where they come from")
    # the variance of a column is a quarter of its squared range at most
    if (ranges**2).sum() / 4 < LEAST_VARIANCE:
        raise BadInput(
            f"data: the {nt} training rows are so near to one another (ranges of columns up to "
            f"{ranges.max():.1e}) that their variance underflows float32; scale the vectors up"
        )


def metric_line(data: Dataset) -> str:
    """Which metric a training takes, and whether another is the same order, in words."""
    if data.metric == L2 and are_unit(data.xt):
        return "l2; the training rows have unit length, so that cosine and ip are the same order"
    if data.metric.added:
        return f"{data.metric.name}; the longest row has length {data.metric.largest:.6g}"
    return data.metric.name


def log_directions(z: np.ndarray, data: Dataset, log: logs.Log) -> None:
    """Says how much of the variance the principal directions hold, if they are not all."""
    kept, d = z.shape[1], data.xt.shape[1]
    if kept < d:
        share = np.einsum("np,np->", z, z, dtype=np.float64) / len(z)  # E‖z‖² of all is 1
        log.line(f"features: the first {kept} of {d} principal directions, {share:.1%} of variance")


def first_arrays(config, xt: np.ndarray, features: int) -> tuple[dict, jax.Array, jax.Array]:
    """What the training rows give to `step.init_state`: standardiser, variances and rotation.

    ours: the rotation is ITQ's. From a random one training ends in worse codes (research log).
    """
    directions = pca.principal_directions(xt, xt.shape[1])
    standardiser, variances = init_standardiser(*directions, features)
    bits = config.model.bits
    leading = standardiser | {"projection": standardiser["projection"][:, :bits]}
    v = parallel.map_rows(standardise, config.eval.block_rows)(leading, xt)
    key = key_for(config.seed, Purpose.ROTATION)
    rotation, _ = rotate(key, v, bits, config.model.itq_iterations)
    return standardiser, variances, rotation


def prepare(config, cache: Path, data: Dataset, standardiser: dict, log: logs.Log) -> Prepared:
    """Standardises the training rows, and finds or reads graph and ground truth."""
    features = functools.partial(
        parallel.map_rows(standardise, config.eval.block_rows), standardiser
    )
    own = data.xa is None  # a query is a training row, which is not its own neighbour
    asked = as_queries(data.metric, data.xt) if own else data.xa
    z_train, z_queries = features(data.xt), None if asked is data.xt else features(asked)
    log_directions(z_train, data, log)
    engine = parallel.engine(config.engine)
    graph, number, weight = None, 0, config.loss.neighbour_weight
    if config.train.graph_neighbours:
        number = config.loss.neighbours
        if own:
            graph = neighbour_graph(config, cache, z_train, log, z_queries)
        else:
            graph = graph_of_queries(config, cache, z_train, z_queries, log)
        found = growth(z_train, graph, z_queries)
        if found < config.apart.below and config.loss.ordinal > 0:
            number = max(number, config.apart.neighbours)
            weight = max(weight, config.apart.neighbour_weight)
            log.line(
                f"nearest neighbours stand apart ({found:.2f}): a batch holds {number} of each "
                f"anchor, and their weight is {weight:g}"
            )
    truth = hosts.in_turn(lambda: evaluate.ground_truth(cache, data, "xv", "xt", engine))
    return Prepared(z_train, z_queries, graph, truth, number, weight)


def neighbour_graph(
    config, cache: Path, z: np.ndarray, log: logs.Log, queries: np.ndarray | None = None
) -> np.ndarray:
    """The graph that `config.train` asks for, `[n, k] i32`, computed or read.

    Args:
        z: `[n, P] f32`.
        queries: `[n, P] f32`, the same rows as queries; None: they are what the rows are.
    """
    t, engine = config.train, parallel.engine(config.engine)
    k, probes = t.graph_neighbours, t.graph_probes
    log.line(f"neighbour graph of {len(z)} training rows, k={k}")
    if t.graph == "exact":
        exact = lambda: euclidean.neighbour_graph(z, k, engine, queries)  # noqa: E731
        of = [z, k] if queries is None else [z, queries, k]
        return hosts.in_turn(lambda: cached(cache, "graph", of, exact))
    near = lambda: approximate.neighbour_graph(z, k, probes, LEAST_RECALL, engine)  # noqa: E731
    of = [z, k, probes, LEAST_RECALL]
    graph = hosts.in_turn(lambda: cached(cache, "approximate_graph", of, near))
    found = approximate.recall(z, graph, engine)
    log.line(f"approximate, it holds {found:.1%} of the exact neighbours, by a sample of rows")
    return graph


def graph_of_queries(
    config, cache: Path, z: np.ndarray, queries: np.ndarray, log: logs.Log
) -> np.ndarray:
    """The exact k nearest training rows of training queries, `[m, k] i32`, computed or read.

    Args:
        z: `[n, P] f32`; queries: `[m, P] f32`.
    """
    k, engine = config.train.graph_neighbours, parallel.engine(config.engine)
    log.line(f"neighbours of {len(queries)} training queries, k={k}")
    exact = lambda: euclidean.knn(queries, z, k, engine)[1]  # noqa: E731
    return hosts.in_turn(lambda: cached(cache, "graph_of_queries", [z, queries, k], exact))


def growth(z: np.ndarray, graph: np.ndarray, queries: np.ndarray | None = None) -> float:
    """How much distances grow from the √k-th neighbour to the k-th, over how much up to the √k-th.

    Both are medians of logarithms over `SAMPLE` rows, each over the logarithm of the growth in
    rank. Where rows have the same intrinsic dimension at every scale it is 1: .97 to 1.01 on
    features of images, .59 to .65 on texts and words, whose few nearest are much nearer than the
    next (research log). ours.

    Args:
        z: `[n, P] f32`.
        graph: `[n, k] i32`, or `[m, k]` of queries, nearest first, k >= 4; for less it is 1.
        queries: `[m, P] f32`; None: z.
    """
    queries = z if queries is None else queries
    k = graph.shape[1]
    middle = math.isqrt(k)
    if middle < 2:
        return 1.0
    rows = evenly.rows(len(queries), SAMPLE)
    near = graph[rows][:, [0, middle - 1, k - 1]]
    squared = ((queries[rows][:, None] - z[near]) ** 2).sum(-1)
    squared = squared[squared[:, 0] > 0]  # a row that is there twice has no nearest of its own
    if not len(squared):
        return 1.0
    first, second = np.median(np.diff(np.log(squared), axis=1), axis=0)
    # the ranks grow by these two factors, which differ unless k is a square
    ranks = math.log(middle) / math.log(k / middle)
    return float(second / first * ranks) if first > 0 else 1.0
