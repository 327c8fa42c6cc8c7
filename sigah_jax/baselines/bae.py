"""Deep binary auto-encoder: a network, its signs, and reconstruction from them.

Shapes: n training rows, d columns, P features after `standardise`, K bits, S steps.

It tells what reconstruction alone can do: SiGAH's kind of network without adversary, sparse
decoder and ordinal loss, but smaller and trained on a twentieth of the rows. One hidden layer of
1,024, 4,000 steps and a rate of 2e-3 were no better; SiGAH's straight-through width of 3 gave .23
in place of .20 map@1000 and the same recall@10 (tiny60k, 64 bits, validation queries).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.baselines.descent import TRAIN_ROWS, descend
from sigah_jax.baselines.sampling import drawn_rows
from sigah_jax.model import binarize
from sigah_jax.model.losses import reconstruction
from sigah_jax.model.networks import HashNetwork
from sigah_jax.model.pca import principal_directions
from sigah_jax.model.standardise import init_standardiser, standardise

FEATURES = 256  # P at most: beyond these directions there is little to reconstruct
BATCH_ROWS = 256
LEARNING_RATE = 5e-4


class BinaryEncoder(NamedTuple):
    """The standardiser and the hash network; the decoder serves training alone."""

    standardiser: dict  # returned by `init_standardiser`
    hash: dict  # parameters of HashNetwork with a linear path


def fit(
    key: jax.Array, xt: np.ndarray, bits: int, steps: int, widths: tuple[int, ...]
) -> BinaryEncoder:
    """The encoder of `train`, on centred and scaled principal components.

    Args:
        xt: a sample of TRAIN_ROWS of the rows where there are more.
        bits: K, any number; more than d is allowed.
        widths: of the hidden ReLU layers, from the input on. Without any the encoder is linear.

    Source: reconstruction from a binary layer as in Carreira-Perpiñán and Raziperchikolaei
    2015 (CVPR), Hashing with Binary Autoencoders, which has a linear encoder and decoder and
    alternates between codes and maps; here gradients pass the sign by a straight-through
    estimator (Bengio et al. 2013) and the encoder is deep. Everything else is ours.
    """
    rows_key, train_key = jax.random.split(key)
    mean, directions, variances = principal_directions(xt, xt.shape[1])
    variances = np.maximum(variances, np.finfo(np.float32).tiny)  # equal rows have no scale
    standardiser, variances = init_standardiser(
        mean, directions, variances, min(FEATURES, xt.shape[1])
    )
    z = jax.jit(standardise)(standardiser, drawn_rows(rows_key, xt, TRAIN_ROWS))
    model, _ = train(train_key, z, variances, bits, steps, widths)
    return jax.tree.map(np.asarray, BinaryEncoder(standardiser, model["hash"]))


def project(params: BinaryEncoder, x: jax.Array) -> jax.Array:
    """The outputs u of the network, `[B, d] -> [B, K] f32`."""
    with jax.default_matmul_precision("highest"):
        return _hash(params.hash, standardise(params.standardiser, x))


def train(
    key: jax.Array,
    z: jax.Array,
    variances: jax.Array,
    bits: int,
    steps: int,
    widths: tuple[int, ...],
) -> tuple[dict, jax.Array]:
    """Minimises the mean of ‖z - D b - c‖², b = sign(u(z)), over encoder u, D and c.

    u starts as in SiGAH: its linear path is a random rotation of the first K principal
    directions, with |u| about 1, and D is the best linear decoder of Gaussian data there.

    Args:
        z: [n, P] f32, E‖z‖² = 1, principal components by falling variance.
        variances: [P] of z.

    Returns:
        {"hash", "decoder" [K, P], "offset" [P]} and the losses [S].
    """
    rotation_key, hash_key, descent_key = jax.random.split(key, 3)
    features = z.shape[1]
    rank = min(bits, features)
    rotation = jax.random.orthogonal(rotation_key, bits)[:rank]  # [rank, K]
    rows = jnp.zeros((features, bits)).at[:rank].set(rotation)
    # mean of |N(0, s²)| is s √(2/π)
    spread = jnp.sqrt(2 / jnp.pi * jnp.sum(variances[:rank]) / bits)
    network = HashNetwork(bits, widths, linear_path=True, query_head=False)
    first = network.init(hash_key, jnp.zeros((1, features)))["params"]
    first["linear"]["kernel"] = rows / spread
    model = {"hash": first, "decoder": rows.T * spread, "offset": jnp.zeros(features)}
    keys = jax.random.split(descent_key, steps)
    model, _, losses = descend(model, None, z, keys, _loss, LEARNING_RATE, steps)
    return model, losses


def _loss(model: dict, z: jax.Array, key: jax.Array) -> jax.Array:
    """Mean squared error of a random batch; gradients pass the sign as through tanh."""
    batch = z[jax.random.randint(key, (BATCH_ROWS,), 0, len(z))]
    b = binarize.straight_through(_hash(model["hash"], batch), 1.0)
    return jnp.mean(reconstruction(batch, b @ model["decoder"] + model["offset"]))


def _hash(params: dict, z: jax.Array) -> jax.Array:
    """The hash network; its shape is that of its parameters."""
    hidden = [params[f"hidden{i}"]["kernel"].shape[1] for i in range(len(params) - 2)]
    bits = params["out"]["kernel"].shape[1]
    network = HashNetwork(bits, hidden, linear_path=True, query_head=False)
    return network.apply({"params": params}, z)[0]
