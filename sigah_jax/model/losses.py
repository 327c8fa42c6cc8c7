"""The terms of both objectives, each a pure function with one value for each example or anchor.

Shapes: B batch, P features, K bits, A anchors, C columns (all the points of a batch that an
anchor is compared with), J positives an anchor. Symbols: z features, ẑ synthetic ones.

Weights, means over the batch and devices are applied in `step`.
"""

import math

import jax
import jax.numpy as jnp

ANCHORS_AT_ONCE = 32  # of the ordinal loss; [32, J, C] stays in the caches of a CPU
VALUES_AT_ONCE = 1 << 26  # the same on other devices, A·J·C of 4 bytes each


def reconstruction(z: jax.Array, z_hat: jax.Array) -> jax.Array:
    """‖z - ẑ‖²: `[B, P], [B, P] -> [B]`."""
    _same_shape(z, z_hat)
    return jnp.sum((z - z_hat) ** 2, -1)


def discriminator(
    error_real: jax.Array, error_fake: jax.Array, kappa: jax.Array, margin: jax.Array
) -> jax.Array:
    """e(z) - κ min(e(ẑ), margin): `[B], [B], scalar, scalar -> [B]`.

    BEGAN's discriminator, which raises e(ẑ) no further than a margin, as EBGAN's does (Zhao et
    al. 2017). Without one e(ẑ) was seen to grow fivefold within 40 steps, faster than κ falls,
    and to spoil the codes. ours: the union of the two.
    """
    _same_shape(error_real, error_fake)
    return error_real - kappa * jnp.minimum(error_fake, margin)


def next_kappa(
    kappa: jax.Array,
    error_real: jax.Array,
    error_fake: jax.Array,
    gamma: float,
    rate: float,
    maximum: float,
) -> jax.Array:
    """BEGAN's equilibrium: κ ← clip(κ + rate (γ E e(z) - E e(ẑ)), 0, maximum). Scalars."""
    return jnp.clip(kappa + rate * (gamma * error_real - error_fake), 0.0, maximum)


def quantisation(u: jax.Array) -> jax.Array:
    """Mean over the bits of (|u| - 1)²: `[B, K] -> [B]`."""
    return jnp.mean((jnp.abs(u) - 1.0) ** 2, -1)


def hamming(b: jax.Array, c: jax.Array) -> jax.Array:
    """Hamming distances of codes in {-1, +1}, (K - b·c)/2: `[A, K], [C, K] -> [A, C]` f32."""
    return 0.5 * (b.shape[-1] - b @ c.T)


def batch_positives(
    distance: jax.Array, self_column: jax.Array | None, draws: jax.Array, share: float
) -> tuple[jax.Array, jax.Array]:
    """Picks positives of each anchor at log-uniform ranks among the columns of the batch.

    The in-batch rank is r = ⌊exp(draw · ln(R + 1))⌋ in 1..R with R = ⌊share · C⌋, at least 1
    and at most C - 1, so every scale of neighbourhood is drawn alike.

    Args:
        distance: `[A, C]` from anchors to columns.
        self_column: `[A] int32`, the column that is the anchor itself; it is never picked. None:
            no column is.
        draws: `[A, J]` uniform in [0, 1).
        share: of the columns that are near enough to be a positive.

    Returns:
        (columns `[A, J] int32`, in-batch ranks `[A, J] int32`, 1 = nearest).
    """
    anchors, columns = distance.shape
    reach = max(1, min(int(share * columns), columns - 1))
    if self_column is not None:
        distance = distance.at[jnp.arange(anchors), self_column].set(jnp.inf)
    nearest = jax.lax.top_k(-distance, reach)[1]  # ties: the lower column first
    ranks = jnp.floor(jnp.exp(draws * jnp.log(reach + 1.0))).astype(jnp.int32)
    ranks = jnp.clip(ranks, 1, reach)
    return jnp.take_along_axis(nearest, ranks - 1, 1), ranks


def neighbour_counts(ranks: jax.Array, k: int) -> jax.Array:
    """How many of an anchor's k nearest each of N > 1 drawn neighbours stands for.

    Rank r was drawn with probability p(r) = ln(1 + 1/r) / ln(k + 1). Beside one of them, which is
    a positive, the N - 1 others count for the k as 1 / ((N - 1) p(r)) each, without a bias. ours.

    Args:
        ranks: `[A, N] f32`, of the neighbours, 1 = nearest.

    Returns:
        `[A, N] f32`.
    """
    chance = jnp.log1p(1.0 / ranks) / math.log(k + 1)
    return 1.0 / ((ranks.shape[1] - 1) * chance)


def ordinal(
    distance: jax.Array,
    code_distance: jax.Array,
    positives: jax.Array,
    ranks: jax.Array,
    share: float,
    temperature: float,
    weights: jax.Array,
    counts: jax.Array | None = None,
) -> jax.Array:
    """Minus the log precision, at each positive, of the ranking by `code_distance`.

        f_ij = Σ_k n_ik [D_ik > D_ij] σ((h_ij - h_ik)/τ)
        loss_i = Σ_j w_j ln(1 + f_ij / ρ_ij) / Σ_j w_j

    f is the soft count of points that are truly farther than j and yet rank before it, of which
    column k stands for n_ik; ρ/(ρ + f) is the soft precision at j. With log-uniform ρ every scale
    from the nearest neighbour to the farthest positive counts alike. No target distance, hence no
    collapse and no scale to fix. ours.

    Args:
        distance: `[A, C]` true distances D (no gradient is wanted).
        code_distance: `[A, C]` distances h of the codes, or of synthetic features.
        positives: `[A, J] int32` columns.
        ranks: `[A, J] f32` ρ, the rank of each positive in the whole population, > 0.
        share: how many points of the population a random column stands for.
        temperature: τ in units of `code_distance`.
        weights: `[J]` w, how much each positive counts, > 0.
        counts: `[A, C]` n, in units of `share`; None: all columns are random.

    Returns:
        `[A]`.
    """
    _same_shape(distance, code_distance)
    _same_shape(positives, ranks)
    weights = weights / jnp.mean(weights)

    @jax.checkpoint  # [J, C] an anchor is computed again backward, faster than it is read
    def of_anchor(arguments: tuple) -> jax.Array:
        d, h, n, j, rho = arguments
        before = jax.nn.sigmoid((h[j][:, None] - h[None]) / temperature)
        counted = before if n is None else n[None] * before
        wrong = jnp.sum(jnp.where(d[None] > d[j][:, None], counted, 0.0), -1)
        return jnp.mean(weights * jnp.log1p(share * wrong / rho))

    arguments = distance, code_distance, counts, positives, ranks
    at_once = ANCHORS_AT_ONCE
    if jax.default_backend() != "cpu":  # a loop of small kernels would be all overhead
        anchors, columns = distance.shape
        at_once = min(anchors, max(at_once, VALUES_AT_ONCE // (columns * positives.shape[1])))
    return jax.lax.map(of_anchor, arguments, batch_size=at_once)


def _same_shape(a: jax.Array, b: jax.Array) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes must be equal, got {a.shape} and {b.shape}")
