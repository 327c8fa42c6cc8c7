"""What a trained generator makes of a block of rows: pure functions, to be mapped over devices.

In full float32 precision on every device: a bit is a sign, and a rounded product near zero flips
it. A row is good if it and its projections are finite; of a bad one the other results say nothing.

Shapes: n rows, d input columns, K bits, W packed bytes, P features after `standardise`. Symbols:
z features, u real projections, ẑ synthetic features, x̂ the same in input units.
`params` is `{"standardiser", "gen"}`.

Not responsible for blocks, devices or bad input: `hasher`.
"""

import jax
import jax.numpy as jnp

from sigah_jax.model import networks, standardise
from sigah_jax.retrieval import codes


def projections(
    nets: networks.Generator, params: dict, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Real projections, and which rows have finite features.

    `[n, d] -> u as base rows [n, K] f32, u as queries [n, K] f32, [n] bool`.
    """
    with jax.default_matmul_precision("highest"):
        z = standardise.standardise(params["standardiser"], x)
        base, query = networks.encode(nets, params["gen"], z)
    # a row that is not finite may pass the ReLU layers, but not the projection before them
    return base, query, jnp.isfinite(z).all(-1)


def _pack(u: jax.Array, good: jax.Array) -> tuple[jax.Array, jax.Array]:
    good &= jnp.isfinite(u).all(range(1, u.ndim))
    kept = good.reshape(-1, *[1] * (u.ndim - 1))
    return jnp.where(kept, codes.pack(u > 0), 0), good


def encode(nets: networks.Generator, params: dict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Packed codes of base rows, zeros in a bad one: `[n, d] -> codes [n, W] u1, good [n] bool`."""
    base, _, good = projections(nets, params, x)
    return _pack(base, good)


def encode_queries(
    nets: networks.Generator, params: dict, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Packed codes of queries, zeros in a bad one: `[n, d] -> codes [n, W] u1, good [n] bool`."""
    _, query, good = projections(nets, params, x)
    return _pack(query, good)


def both_codes(nets: networks.Generator, params: dict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Codes of rows as queries and as base rows: `[n, d] -> codes [n, 2, W] u1, good [n] bool`."""
    base, query, good = projections(nets, params, x)
    return _pack(jnp.stack([query, base], 1), good)


def both_projections(
    nets: networks.Generator, params: dict, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Both real projections of rows: `[n, d] -> 2 u_query + u [n, K] f32, good [n] bool`."""
    base, query, good = projections(nets, params, x)
    u = 2 * query + base
    return u, good & jnp.isfinite(u).all(-1)


def project_queries(
    nets: networks.Generator, params: dict, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Real projections of queries: `[n, d] -> u [n, K] f32, good [n] bool`."""
    _, query, good = projections(nets, params, x)
    return query, good & jnp.isfinite(query).all(-1)


def features_and_projections(
    nets: networks.Generator, params: dict, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a base row's code is refined by: `[n, d] -> z [n, P], u [n, K] f32, good [n] bool`."""
    base, _, good = projections(nets, params, x)
    z = standardise.standardise(params["standardiser"], x)
    return z, base, good & jnp.isfinite(base).all(-1)


def features(nets: networks.Generator, params: dict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Standardised features: `[n, d] -> z [n, P] f32, good [n] bool`."""
    del nets
    z = standardise.standardise(params["standardiser"], x)
    return z, jnp.isfinite(z).all(-1)


def decode(nets: networks.Generator, params: dict, packed: jax.Array) -> jax.Array:
    """Synthetic features of codes: `[n, W] u1 -> ẑ [n, P] f32`."""
    b = codes.signs(packed, nets.hash.bits)
    with jax.default_matmul_precision("highest"):
        return networks.decode(nets, params["gen"], b)[0]


def synthesise(nets: networks.Generator, params: dict, packed: jax.Array) -> jax.Array:
    """Synthetic features of codes in input units: `[n, W] u1 -> x̂ [n, d] f32`."""
    return standardise.restore(params["standardiser"], decode(nets, params, packed))
