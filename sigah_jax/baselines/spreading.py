"""Spreading vectors: a network that keeps neighbours and spreads its outputs over the sphere.

Shapes: n training rows, P principal components, B rows of a batch, K bits.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.baselines import linear
from sigah_jax.baselines.descent import descend
from sigah_jax.baselines.linear import LinearHash
from sigah_jax.baselines.sampling import drawn_rows
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.model.pca import principal_directions
from sigah_jax.retrieval import euclidean

GRAPH_ROWS = 20_000  # of a larger training set a sample: the graph takes n² d operations
FEATURES = 256  # P at most
POSITIVES = 10  # neighbours that a positive is drawn from, as the authors' code
NEGATIVE_RANK = 50  # among the outputs of all n rows, as the authors' code
POOL_ROWS = 4096  # rows a negative is looked for in, another sample each epoch
BATCH_ROWS = 128
LEARNING_RATE = 3e-3
TINY = 1e-12  # added to squared distances: the root has no slope at zero


class SpreadingNet(NamedTuple):
    """Principal components of mean square 1, and the ReLU network after them."""

    inputs: LinearHash  # mean [d], weights [d, P]
    layers: tuple  # of (weights [in, out], bias [out]); the last gives K outputs


def fit(
    key: jax.Array, xt: np.ndarray, bits: int, epochs: int, width: int, koleo_weight: float
) -> SpreadingNet:
    """Minimises the mean of max(0, ‖f(x) - f(x⁺)‖ - ‖f(x) - f(x⁻)‖) + λ `koleo`.

    f is a network P → width → width → K with ReLU between and outputs of unit length. x⁺ is
    one of the POSITIVES nearest rows of x, drawn anew each epoch; x⁻ is the row whose output
    has rank NEGATIVE_RANK from f(x), found at the start of each epoch. The code is sign f(x).

    Args:
        xt: more rows than NEGATIVE_RANK; a sample of GRAPH_ROWS of them where there are more.
        bits: K, any number; more than d is allowed.
        epochs: passes over the sample.
        width: of both hidden layers.
        koleo_weight: λ > 0; 0.05 in the authors' code, ours is `weight_of`. Too small a one
            lets the outputs collapse, a large one gives up neighbourhoods wider than the
            negatives' rank.

    Raises:
        BadInput: too few rows.

    Source: Sablayrolles, Douze, Schmid and Jégou 2019 (ICLR), Spreading vectors for similarity
    search; constants of the authors' code where said. Ours, for seconds on a CPU in place of
    hours on a GPU: a sample of the rows, their principal components, a narrower network
    without BatchNorm (it brought nothing on MNIST), Adam with a cosine schedule, negatives
    whose rank is estimated in a pool, and λ by the number of bits.
    """
    n = min(len(xt), GRAPH_ROWS)
    if n <= NEGATIVE_RANK:
        raise BadInput(
            f"training rows: spreading vectors takes the {NEGATIVE_RANK}th nearest row as its "
            f"negative, so it needs more rows than that; got {n}"
        )
    rows_key, init_key, epochs_key = jax.random.split(key, 3)
    features = min(FEATURES, xt.shape[1])
    mean, directions, variances = principal_directions(xt, features)
    scale = np.sqrt(np.mean(variances)) or np.float32(1)  # equal rows have no scale
    inputs = LinearHash(mean, directions / scale)
    x = drawn_rows(rows_key, xt, n)
    graph = euclidean.neighbour_graph(x, POSITIVES, parallel.engine("auto"))
    z = jax.jit(linear.project)(inputs, x)
    layers, _ = train(init_key, epochs_key, z, graph, (width, width, bits), epochs, koleo_weight)
    return jax.tree.map(np.asarray, SpreadingNet(inputs, layers))


def weight_of(bits: int) -> float:
    """λ = 0.005 max(1, 32/K)²: .02 at 16 bits, .005 from 32 bits on.

    Ours, where the authors have 0.05 at any length. Chosen by the mean `map` of validation
    queries of MNIST, tiny60k and deep60k, seed 0. At 64 bits 0.005 is the best of six weights;
    at 32 bits 0.005 gives .400/.128/.394 and 0.01 .325/.177/.372 (MNIST 0.01125); at 16 bits
    0.005 lets the outputs collapse, .295/.037/.112, while 0.02 gives .239/.096/.265 and 0.05
    .195/.142/.226 (MNIST 0.045). No weight suits every set: more of it helps tiny60k and harms
    MNIST at all three lengths.
    """
    return 0.005 * max(1, 32 / bits) ** 2


def project(params: SpreadingNet, x: jax.Array) -> jax.Array:
    """Outputs of unit length, `[B, d] -> [B, K] f32`."""
    with jax.default_matmul_precision("highest"):
        return _network(params.layers, linear.project(params.inputs, x))


def koleo(y: jax.Array) -> jax.Array:
    """-mean_i log(B min_{j ≠ i} ‖y_i - y_j‖), Kozachenko and Leonenko's entropy, negated.

    Up to constants and a factor it estimates minus the differential entropy of the outputs, so
    less of it means a more even spread. Which row is nearest carries no gradient.

    Args:
        y: [B, K] f32 of unit length, so that the nearest has the largest inner product.

    Returns:
        scalar; the constant log B is that of the authors' code.
    """
    products = y @ y.T - 3 * jnp.eye(len(y))  # below any other: never its own neighbour
    nearest = jnp.argmax(jax.lax.stop_gradient(products), axis=1)
    return -jnp.mean(jnp.log(len(y) * _distances(y, y[nearest])))


def train(
    init_key: jax.Array,
    epochs_key: jax.Array,
    z: jax.Array,
    graph: np.ndarray,
    widths: tuple[int, ...],
    epochs: int,
    koleo_weight: float,
) -> tuple[tuple, np.ndarray]:
    """The layers of the network, and the means of the terms of `_loss` in each epoch.

    Args:
        z: [n, P] f32, mean square 1.
        graph: [n, POSITIVES] neighbours of each row.
        widths: of the layers, K last.

    Returns:
        (weights, bias) of each layer, and [epochs, 2] f32.
    """
    n, engine = len(z), parallel.engine("auto")
    batch = min(BATCH_ROWS, n)
    steps = n // batch
    layers = _init(init_key, (z.shape[1], *widths))
    state, data, means = None, (z, koleo_weight), []
    for key in jax.random.split(epochs_key, epochs):
        positive_key, negative_key, order_key = jax.random.split(key, 3)
        columns = jax.random.randint(positive_key, (n,), 0, graph.shape[1])
        positives = graph[np.arange(n), columns]
        negatives = _negatives(negative_key, np.asarray(_outputs(layers, z)), engine)
        batches = jax.random.permutation(order_key, n)[: steps * batch].reshape(steps, batch)
        triplets = jnp.stack([batches, positives[batches], negatives[batches]], axis=1)
        layers, state, terms = descend(
            layers, state, data, triplets, _loss, LEARNING_RATE, epochs * steps
        )
        means.append(np.mean(terms, axis=0))
    return layers, np.array(means)


def _negatives(key: jax.Array, y: np.ndarray, engine: str) -> np.ndarray:
    """A row of rank about NEGATIVE_RANK from each, by distance of outputs y [n, K]. [n]."""
    pool = np.sort(np.asarray(jax.random.permutation(key, len(y))[:POOL_ROWS]))
    rank = max(1, round(NEGATIVE_RANK * len(pool) / len(y)))
    # One more, since the row itself may be in the pool.
    _, ids = euclidean.knn(y, y[pool], min(rank + 1, len(pool)), engine)
    return pool[ids[:, -1]]


def _loss(layers: tuple, data: tuple, rows: jax.Array) -> jax.Array:
    """The means of `rank_loss` and λ `koleo` for a batch of triplets [3, B]: [2]."""
    z, koleo_weight = data
    anchor, positive, negative = (_network(layers, z[i]) for i in rows)
    return jnp.stack(
        [jnp.mean(rank_loss(anchor, positive, negative)), koleo_weight * koleo(anchor)]
    )


def rank_loss(anchor: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
    """max(0, ‖a - p‖ - ‖a - n‖), no margin: [B, K] three times -> [B]."""
    return jax.nn.relu(_distances(anchor, positive) - _distances(anchor, negative))


def _distances(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum((a - b) ** 2, axis=1) + TINY)


def _init(key: jax.Array, widths: tuple[int, ...]) -> tuple:
    """He-normal weights and zero biases."""
    he = jax.nn.initializers.he_normal()
    pairs = list(itertools.pairwise(widths))
    keys = jax.random.split(key, len(pairs))
    return tuple((he(k, pair), jnp.zeros(pair[1])) for k, pair in zip(keys, pairs, strict=True))


def _network(layers: tuple, z: jax.Array) -> jax.Array:
    """[B, P] -> [B, K] of unit length."""
    for weights, bias in layers[:-1]:
        z = jax.nn.relu(z @ weights + bias)
    weights, bias = layers[-1]
    y = z @ weights + bias
    return y / jnp.sqrt(jnp.sum(y**2, axis=1, keepdims=True) + TINY)


_outputs = jax.jit(_network)
