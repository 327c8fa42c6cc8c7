"""The networks of SiGAH as linen modules, and their initial parameters.

Shapes: B batch, P input features (after `standardise`), K bits, M atoms.
The generator `gen` is the hash network followed by the sparse decoder; the discriminator
`dis` is an auto-encoder. Symbols: z features, b codes in {-1, +1}, u the real projections that they
are signs of, s sparse codes, ẑ synthetic features in the space of z.

Not responsible for losses or updates: `losses`, `step`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sigah_jax.model import sparse


def _relu_layers(h: jax.Array, widths: Sequence[int]) -> jax.Array:
    """He-normal dense layers with ReLU, inside a compact module."""
    for i, width in enumerate(widths):
        layer = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"hidden{i}")
        h = nn.relu(layer(h))
    return h


class HashNetwork(nn.Module):
    """ReLU network from features to real projections u; code bit k is u_k > 0.

    With `linear_path`, u is the sum of a linear projection and the ReLU network (ours).
    Without it the ReLU network alone, as in the paper's abstract.

    With `query_head` a further linear map of the hidden units is added for queries, so that their
    codes may differ from those of the base: two hash functions compared by Hamming distance
    (Neyshabur et al. 2013, The Power of Asymmetry in Binary Hashing; that the second is the first
    and a learned difference is ours). To be a Euclidean neighbour is not a symmetric relation: a
    row that is near to everything is a neighbour of many, and a bit that most queries have can say
    so of a base row. The map starts at zero.
    """

    bits: int
    widths: Sequence[int]
    linear_path: bool
    query_head: bool

    @nn.compact
    def __call__(self, z: jax.Array, stride: int = 1) -> tuple[jax.Array, jax.Array]:
        """`[B, P] f32` -> u as base rows `[B, K]`, u of every `stride`-th as a query `[B', K]`."""
        # E‖z‖² = 1; scaled to variance 1 a feature, so that Adam's step fits the weights
        hidden = _relu_layers(z * math.sqrt(z.shape[-1]), self.widths)
        gain = 0.02 if self.linear_path else 2.0
        init = nn.initializers.variance_scaling(gain, "fan_in", "normal")

        base = nn.Dense(self.bits, kernel_init=init, name="out")(hidden)
        if self.linear_path:
            base += nn.Dense(self.bits, use_bias=False, name="linear")(z)
        query = base[::stride]
        if self.query_head:
            head = nn.Dense(self.bits, kernel_init=nn.initializers.zeros, name="query_out")
            query += head(hidden[::stride])
        return base, query


class SparseDecoder(nn.Module):
    """Codes to synthetic features: ISTA against a sensing matrix, then a dictionary.

    The sensing matrix A, the per-atom weights λ of |s|, the dictionary F and the offset c₄ are
    all learned; `steps` iterations of ISTA are unrolled.
    """

    atoms: int
    features: int
    steps: int
    lam: float  # λ of every atom at the start

    @nn.compact
    def __call__(self, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`b [B, K] f32` in {-1, +1} -> (ẑ `[B, P]`, s `[B, M]`)."""
        a = self.param("sensing", _unit_columns, (b.shape[-1], self.atoms))
        f32 = jnp.float32  # also where the default is double
        lam = self.param("lam", nn.initializers.constant(self.lam), (self.atoms,), f32)
        shape = self.atoms, self.features
        dictionary = self.param("dictionary", nn.initializers.zeros, shape, f32)
        offset = self.param("offset", nn.initializers.zeros, (self.features,), f32)
        s = sparse.ista(b, a, jnp.abs(lam), self.steps)
        return s @ dictionary + offset, s


class DenseDecoder(nn.Module):
    """Codes to synthetic features without sparse coding, for the ablation: a linear map of b.

    With `hidden` units it is a ReLU network of one hidden layer instead.
    """

    hidden: int  # 0: linear
    features: int

    @nn.compact
    def __call__(self, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`b [B, K] f32` in {-1, +1} -> (ẑ `[B, P]`, what it is a linear map of)."""
        h = _relu_layers(b, (self.hidden,)) if self.hidden else b
        init = nn.initializers.variance_scaling(0.02, "fan_in", "normal")
        return nn.Dense(self.features, kernel_init=init, name="out")(h), h


class AutoEncoder(nn.Module):
    """The discriminator: P -> widths -> P with ReLU between. ours: the widths."""

    widths: Sequence[int]
    features: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """`[B, P] f32 -> [B, P] f32`."""
        scale = math.sqrt(z.shape[-1])
        h = _relu_layers(z * scale, self.widths)
        return nn.Dense(self.features, name="out")(h) / scale


class Generator(NamedTuple):
    """The modules of the generator; they hold no arrays."""

    hash: HashNetwork
    decoder: SparseDecoder | DenseDecoder


class Networks(NamedTuple):
    """The modules of the generator and the discriminator."""

    gen: Generator
    dis: AutoEncoder


def make_decoder(model, atoms: int, features: int) -> SparseDecoder | DenseDecoder:
    """The decoder that `config.model` describes, of M = `atoms` and P = `features`."""
    if model.decoder == "ista":
        return SparseDecoder(atoms, features, model.ista_steps, model.lam)
    return DenseDecoder(atoms if model.decoder == "mlp" else 0, features)


def make_generator(model, features: int) -> Generator:
    """The generator that `config.model` describes, for P = `features`."""
    net = HashNetwork(model.bits, tuple(model.hash_widths), model.linear_path, model.query_head)
    return Generator(net, make_decoder(model, model.atoms, features))


def make_networks(model, features: int) -> Networks:
    """The generator and the discriminator that `config.model` describes, for P = `features`."""
    return Networks(make_generator(model, features), AutoEncoder(tuple(model.dis_widths), features))


def encode(
    nets: Generator, gen: dict, z: jax.Array, stride: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Real projections u of standardised features, see `HashNetwork.__call__`.

    Of an output that is not used nothing is computed, once compiled.
    """
    return nets.hash.apply({"params": gen["hash"]}, z, stride)


def decode(nets: Generator, gen: dict, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """ẑ and s, the synthetic features and sparse codes of b: `[B, K] -> [B, P], [B, M]`."""
    return nets.decoder.apply({"params": gen["decoder"]}, b)


def error(dis_net: AutoEncoder, dis: dict, z: jax.Array) -> jax.Array:
    """e(z) = ‖AE(z) - z‖², the discriminator's error: `[B, P] -> [B]`."""
    return jnp.sum((dis_net.apply({"params": dis}, z) - z) ** 2, -1)


def init_gen(key: jax.Array, nets: Generator, variances: jax.Array, rotation: jax.Array) -> dict:
    """Parameters of the generator: `{"hash", "decoder"}`.

    ours: the linear path starts as a rotation W of the first K principal directions (for K > P
    as P orthonormal rows), scaled so that |u| is about 1 on average. A linear decoder
    starts as ẑ = c W b, c the mean of |Wᵀz|, the best linear reconstruction at that W. The
    dictionary would give the same for sparse codes Aᵀb; ISTA's are smaller, and ẑ starts at .01
    (16 bits) to .06 (128 bits) of c W b. A ReLU network starts at random.

    Args:
        variances: `[P]` variance of each input feature, in the order of `standardise`.
        rotation: W, `[min(K, P), K]` with orthonormal rows.
    """
    hash_key, decoder_key = jax.random.split(key)
    bits, features = nets.hash.bits, variances.shape[0]
    rank = len(rotation)
    rows = jnp.zeros((features, bits), jnp.float32).at[:rank].set(rotation)
    # mean of |N(0, s²)| is s √(2/π); a projection's variance is the mean over the bits
    spread = jnp.sqrt(2 / jnp.pi * jnp.sum(variances[:rank]) / bits)

    gen = nets.hash.init(hash_key, jnp.zeros((1, features)))["params"]
    if nets.hash.linear_path:
        gen["linear"]["kernel"] = rows / spread
    decoder = init_decoder(decoder_key, nets)
    if isinstance(nets.decoder, SparseDecoder):
        atoms = nets.decoder.atoms
        decoder["dictionary"] = decoder["sensing"].T @ (rows.T * spread) * bits / atoms
    elif not nets.decoder.hidden:
        decoder["out"]["kernel"] = rows.T * spread
    return {"hash": gen, "decoder": decoder}


def init_decoder(key: jax.Array, nets: Generator) -> dict:
    """Parameters of a decoder that knows of no hash network; of a sparse one, ẑ = 0."""
    return nets.decoder.init(key, jnp.zeros((1, nets.hash.bits)))["params"]


def init_dis(key: jax.Array, net: AutoEncoder) -> dict:
    """Parameters of the discriminator."""
    return net.init(key, jnp.zeros((1, net.features)))["params"]


def _unit_columns(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    a = jax.random.normal(key, shape, jnp.float32)
    return a / jnp.linalg.norm(a, axis=0)
