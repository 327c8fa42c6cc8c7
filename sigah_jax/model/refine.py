"""Codes by synthesis: of the codes near sign(u), one whose synthetic feature is nearer to z.

    E(b) = ‖z - D(b)‖² + μ / ‖z‖⁴ Σ_k |u_k| [b_k differs from sign u_k]

is lowered by flips of bits, from b = sign(u) on. D is the decoder, z the features of a base row,
u its real projections; queries keep their hash function. A base row is encoded once, so that its
code may cost more than a query's. A row near the centre is near to many queries, whose rankings
by Hamming distance its flips disturb, so they cost more (research log); E‖z‖² = 1, and a ‖z‖² below
`LEAST_SQUARE` counts as that in the price. ours.

Shapes: B rows, K bits, P features, C candidates a row.

Not responsible for which rows are finished: `encoder.refining`.
"""

import jax
import jax.numpy as jnp

from sigah_jax.model import networks

TOGETHER = (1, 2, 4)  # sizes of the sets of best bits that are decoded
LEAST_SQUARE = 1e-3  # the least ‖z‖² that the price of a flip is divided by, squared
ROUNDING = 1e-5  # flips must lower E by more than this share of ‖z - D(b)‖²


def best_flips(nets: networks.Generator, params: dict, rows: jax.Array) -> jax.Array:
    """The bits of each row whose flips lower E most, as far as the best predictions tell.

    The change of ‖z - D(b)‖² is predicted to second order: from its gradient, and from how flips of
    each pair of bits move ẑ on average. Four candidates are decoded: the bit of the best
    prediction; this bit with one and with three more, each the best beside those before it; and
    the second best bit alone.

    Args:
        params: {"gen", "moves" `[K, K]`, "mu" scalar}: the generator's parameters, the means of
            b_k b_l Δ_k·Δ_l, where a flip of bit k moves D(b) by Δ_k, and μ, in units of ‖z‖² for
            |u| = 1 and ‖z‖ = 1.
        rows: `[B, P + 2 K] f32`: z, u and b in {-1, +1} of each row, beside one another.

    Returns:
        `[B, K] bool`, the bits to be flipped; none where no candidate lowers E beyond rounding.
    """
    bits, gen = nets.hash.bits, params["gen"]
    z, u, b = jnp.split(rows, [rows.shape[1] - 2 * bits, rows.shape[1] - bits], 1)

    def errors(b: jax.Array) -> jax.Array:  # [B, C, K] -> [B, C]
        z_hat = networks.decode(nets, gen, b.reshape(-1, bits))[0]
        return jnp.sum((z[:, None] - z_hat.reshape(*b.shape[:2], -1)) ** 2, -1)

    with jax.default_matmul_precision("highest"):
        error, backward = jax.vjp(errors, b[:, None])
        gradient = backward(jnp.ones_like(error))[0][:, 0]
        square = jnp.maximum(jnp.sum(z**2, 1, keepdims=True), LEAST_SQUARE)
        cost = params["mu"] / square**2 * jnp.where((b > 0) == (u > 0), jnp.abs(u), -jnp.abs(u))
        gain = 2 * b * gradient - jnp.diagonal(params["moves"]) - cost
        chosen = candidates(gain, b, params["moves"])
        flipped = b[:, None] * (1 - 2 * chosen)
        lowered = error - errors(flipped) - jnp.sum(chosen * cost[:, None], -1)
    best = jnp.argmax(lowered, 1)[:, None]
    enough = jnp.take_along_axis(lowered, best, 1) > ROUNDING * error
    return (jnp.take_along_axis(chosen, best[..., None], 1)[:, 0] > 0) & enough


def candidates(gain: jax.Array, b: jax.Array, moves: jax.Array) -> jax.Array:
    """The sets of bits whose flips are decoded: `[B, C, K] f32` of 0 and 1.

    Of equal predictions the lower bit is taken.

    Args:
        gain: `[B, K]`, by how much a flip of each bit alone is predicted to lower E.
        b, moves: as in `best_flips`.
    """

    def best(gain: jax.Array, taken: jax.Array) -> jax.Array:  # of the bits that are not taken
        k = jnp.argmax(jnp.where(taken > 0, -jnp.inf, gain), 1)
        return jax.nn.one_hot(k, gain.shape[1], dtype=gain.dtype)

    together = jnp.zeros_like(gain)
    sets, left = [], gain
    for _ in range(max(TOGETHER)):
        bit = best(left, together)
        together = jnp.maximum(together, bit)  # a code with fewer bits: all of them
        sets.append(together)
        left = left - 2 * b * (bit * b @ moves)
    return jnp.stack([*(sets[size - 1] for size in TOGETHER), best(gain, sets[0])], 1)
