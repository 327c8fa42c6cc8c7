"""What a trained generator makes of a block of rows: pure functions, to be mapped over devices.

In full float32 precision on every device: a bit is a sign, and a rounded product near zero flips
it.

Shapes: n rows, d input columns, K bits, W packed bytes, P features after `standardise`.
`params` is `{"standardiser", "gen"}`.

Not responsible for blocks, devices or bad input: `hasher`.
"""

import jax
import jax.numpy as jnp

from sigah_jax.model import networks, standardise
from sigah_jax.retrieval import codes


def projections(
    nets: networks.Networks, params: dict, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Real projections and which rows are good.

    `[n, d] -> u as base rows [n, K] f32, u as queries [n, K] f32, [n] bool`.
    """
    with jax.default_matmul_precision("highest"):
        z = standardise.standardise(params["standardiser"], x)
        base, query = networks.encode(nets, params["gen"], z)
    # a row that is not finite may pass the ReLU layers, but not the projection before them
    return base, query, jnp.isfinite(z).all(-1)


def _pack(u: jax.Array, good: jax.Array) -> jax.Array:
    good &= jnp.isfinite(u).all(-1)
    packed = jnp.where(good[:, None], codes.pack(u > 0), 0)
    return jnp.concatenate([packed, good[:, None].astype(jnp.uint8)], 1)


def encode(nets: networks.Networks, params: dict, x: jax.Array) -> jax.Array:
    """Packed codes of base rows, in a last column 1 for a good row: `[n, d] -> [n, W + 1] u1`."""
    base, _, good = projections(nets, params, x)
    return _pack(base, good)


def encode_queries(nets: networks.Networks, params: dict, x: jax.Array) -> jax.Array:
    """The same of queries: `[n, d] -> [n, W + 1] u1`."""
    _, query, good = projections(nets, params, x)
    return _pack(query, good)


def project(nets: networks.Networks, params: dict, x: jax.Array) -> jax.Array:
    """Real projections of queries, NaN in a bad row: `[n, d] -> [n, K] f32`."""
    _, query, good = projections(nets, params, x)
    good &= jnp.isfinite(query).all(-1)
    return jnp.where(good[:, None], query, jnp.nan)


def features(nets: networks.Networks, params: dict, x: jax.Array) -> jax.Array:
    """Standardised features, NaN in a bad row: `[n, d] -> [n, P] f32`."""
    del nets
    z = standardise.standardise(params["standardiser"], x)
    return jnp.where(jnp.isfinite(z).all(-1, keepdims=True), z, jnp.nan)


def decode(nets: networks.Networks, params: dict, packed: jax.Array) -> jax.Array:
    """Synthetic features of codes: `[n, W] u1 -> [n, P] f32`."""
    b = 2.0 * codes.unpack(packed, nets.hash.bits) - 1.0
    with jax.default_matmul_precision("highest"):
        return networks.decode(nets, params["gen"], b)[0]


def synthesise(nets: networks.Networks, params: dict, packed: jax.Array) -> jax.Array:
    """Synthetic features of codes in input units: `[n, W] u1 -> [n, d] f32`."""
    return standardise.restore(params["standardiser"], decode(nets, params, packed))
