"""What the generator is trained towards: the weights of its terms, and the ordinal ones of a batch.

An anchor is compared with columns, the rows of all groups on all devices; see `step` for what a
batch is. Several neighbours of the graph are columns of their own anchor alone.

Shapes: A anchors and G rows a group on one device, N neighbours an anchor, C columns over all
devices, P features, K bits.

Not responsible for the terms themselves (`model.losses`) nor for updates (`step`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sigah_jax.model import losses
from sigah_jax.retrieval.euclidean import squared_distances
from sigah_jax.training.batches import Batch


class Weights(NamedTuple):
    """Weights of the terms of the generator's loss: `config.WEIGHTS`."""

    ordinal: float
    ordinal_synthetic: float
    reconstruction: float
    adversary: float
    quantisation: float

    @classmethod
    def of(cls, config) -> "Weights":
        """Those of `config.loss`."""
        return cls(*(config.loss[name] for name in cls._fields))


class Population(NamedTuple):
    """The training rows, as far as a batch must know what it is drawn from."""

    rows: int  # n
    neighbour_weight: float  # of an anchor's positives of the graph; one of the batch has 1
    holds_anchors: bool  # the first row of a group is its anchor, and not its own neighbour


class Anchors(NamedTuple):
    """This device's anchors, as queries."""

    z: jax.Array  # [A, P]
    b: jax.Array | None  # [A, K]; None where no term on codes has a weight


class Columns(NamedTuple):
    """This device's columns, as base rows."""

    z: jax.Array  # [A·G, P]
    b: jax.Array  # [A·G, K]
    z_hat: jax.Array  # [A·G, P]


def ordinal_terms(
    config,
    weights: Weights,
    population: Population,
    anchors: Anchors,
    columns: Columns,
    batch: Batch,
    axis: str,
) -> dict[str, jax.Array]:
    """The ordinal losses of this device's anchors, on codes and on synthetic features.

    What is near is decided in full float32, whatever precision the rest is computed in.

    Args:
        population: what batches are drawn from.
        batch: this device's slice of one step.
        axis: the mapped axis over which columns are gathered.

    Returns:
        Those of weight above 0 of `ordinal`, `[A]` on Hamming distances, and `ordinal_synthetic`,
        `[A]` on ‖z_anchor - ẑ_column‖².
    """
    c = config.loss
    count, group = batch.rows.shape
    drawn = batch.neighbour_ranks.shape[1]
    # neighbours of other anchors are rows that are near to many: as random rows, several of each
    # anchor would count for far more than there are (research log)
    alone = drawn > 1
    group -= drawn * alone

    def gather(x: jax.Array) -> jax.Array:  # the columns of all anchors
        rows = x.reshape(count, -1, x.shape[-1])[:, :group].reshape(-1, x.shape[-1])
        return lax.all_gather(rows, axis_name=axis, tiled=True)

    own = lax.axis_index(axis) * count * group + jnp.arange(count) * group
    distance = squared_distances(anchors.z, gather(lax.stop_gradient(columns.z)))
    itself = own if population.holds_anchors else None
    positives, in_batch = losses.batch_positives(distance, itself, batch.draws, c.reach_share)
    # in-batch rank r stands for rank (r - ½) n / C in the whole set if columns are random; columns
    # that are neighbours of anchors make it 1.4 (r = 30) to 5 times (r = 1) too large: research log
    share = population.rows / distance.shape[1]  # points that a random column stands for
    # not times `share`, whose rounding would make other codes of the same seed
    ranks = (in_batch - 0.5) * population.rows / distance.shape[1]
    terms = {}
    if weights.ordinal > 0:
        near_ranks = batch.neighbour_ranks.astype(jnp.float32)
        by_features, by_codes, counts = distance, losses.hamming(anchors.b, gather(columns.b)), None
        near = (own + group - 1)[:, None]
        if alone:

            def beside(d: jax.Array, of: Callable, a: jax.Array, x: jax.Array) -> jax.Array:
                rows = x.reshape(count, -1, x.shape[-1])[:, group:]
                return jnp.concatenate([d, jax.vmap(of)(a[:, None], rows)[:, 0]], 1)

            near = jnp.broadcast_to(distance.shape[1] + jnp.arange(drawn), (count, drawn))
            by_features = beside(
                distance, squared_distances, anchors.z, lax.stop_gradient(columns.z)
            )
            by_codes = beside(by_codes, losses.hamming, anchors.b, columns.b)
            points = losses.neighbour_counts(near_ranks, config.train.graph_neighbours)
            counts = jnp.concatenate([jnp.ones(distance.shape), points / share], 1)
        terms["ordinal"] = losses.ordinal(
            by_features,
            by_codes,
            jnp.concatenate([near, positives[:, : c.batch_positives]], 1),
            jnp.concatenate([near_ranks, ranks[:, : c.batch_positives]], 1),
            share,
            c.temperature_bits,
            jnp.ones(drawn + c.batch_positives).at[:drawn].set(population.neighbour_weight / drawn),
            counts,
        )
    if weights.ordinal_synthetic > 0:
        terms["ordinal_synthetic"] = losses.ordinal(
            distance,
            squared_distances(anchors.z, gather(columns.z_hat), precision=None),
            positives[:, c.batch_positives :],
            ranks[:, c.batch_positives :],
            share,
            c.temperature_synthetic,
            jnp.ones(c.batch_positives_synthetic),
        )
    return terms
