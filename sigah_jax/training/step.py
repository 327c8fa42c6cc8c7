"""The training step: state, generator update, discriminator update, and many steps a call.

Shapes: S steps a call, A anchors and G rows a group on one device, C columns over all devices,
n training rows, P features, K bits.

A batch is A groups of G rows. The first row of a group is an anchor; with a neighbour graph the
last is one of the anchor's true neighbours; the rest are random. All rows of all groups on all
devices are the columns that anchors are compared with; the adversary sees the anchors alone,
whose number is enough for it. A device's groups are one slice of the
global batch, so the columns stand in the same order for every number of devices.

Not responsible for choosing rows (`batches`) nor for devices (`parallel`): the functions
here name a mapped axis and reduce over it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax
from ml_collections import config_dict

from sigah_jax.model import binarize, losses, networks

PARTS = ("model", "loss", "began", "optim", "train")  # of the config, all that a step depends on


@struct.dataclass
class State:
    """All that training changes, and the standardiser that its features went through."""

    step: jax.Array  # i32, updates done
    standardiser: dict  # constant; kept here so that a checkpoint is complete
    gen: dict
    dis: dict
    gen_opt: Any
    dis_opt: Any
    kappa: jax.Array  # f32, BEGAN's κ


class Batch(NamedTuple):
    """One step's choice of rows, on one device; in a call every field has S in front."""

    rows: jax.Array  # [A, G] i32, rows of the training set
    neighbour_ranks: jax.Array  # [A] i32, rank of the last row among the anchor's neighbours
    draws: jax.Array  # [A, J] f32 uniform in [0, 1), for in-batch positives


class Optimisers(NamedTuple):
    """Adam of the two nets."""

    gen: optax.GradientTransformation
    dis: optax.GradientTransformation


def shared(make: Callable) -> Callable:
    """`make(config, ...)`, whose result is one object for all who ask with equal arguments.

    So that what JAX compiles of it is shared in a process. Of the config only `PARTS` count.
    """
    cached = functools.cache(make)

    @functools.wraps(make)
    def of(config, *arguments):
        parts = {name: config[name].to_dict() for name in PARTS}
        return cached(config_dict.FrozenConfigDict(parts), *arguments)

    return of


@shared
def make_optimisers(config) -> Optimisers:
    """Adam for both nets, cosine from the initial rate to `final_lr_share` of it.

    The sparse decoder's steps are `decoder_lr_factor` times those of the hash network.
    """
    of_decoder = {"hash": False, "decoder": True}
    faster = optax.masked(optax.scale(config.optim.decoder_lr_factor), of_decoder)
    gen = optax.chain(_adam(config, config.optim.gen_lr), faster)
    return Optimisers(gen, _adam(config, config.optim.dis_lr))


@shared
def make_refit_optimisers(config) -> Optimisers:
    """The same for a hash network that stays as it is."""
    decoder = _adam(config, config.optim.gen_lr * config.optim.decoder_lr_factor)
    transforms = {"kept": optax.set_to_zero(), "trained": decoder}
    gen = optax.partition(transforms, {"hash": "kept", "decoder": "trained"})
    return Optimisers(gen, _adam(config, config.optim.dis_lr))


def _adam(config, lr: float) -> optax.GradientTransformation:
    o = config.optim
    schedule = optax.cosine_decay_schedule(lr, config.train.steps, o.final_lr_share)
    return optax.adam(schedule, b1=o.adam_b1, b2=o.adam_b2)


def init_state(
    key: jax.Array, nets: networks.Networks, tx: Optimisers, standardiser: dict, variances, rotation
) -> State:
    """The state before the first step; a pure function of its arguments.

    Args:
        standardiser, variances: of `init_standardiser`.
        rotation: see `networks.init_gen`.
    """
    gen_key, dis_key = jax.random.split(key)
    gen = networks.init_gen(gen_key, nets, variances, rotation)
    dis = networks.init_dis(dis_key, nets)
    return State(
        step=jnp.int32(0),
        standardiser=standardiser,
        gen=gen,
        dis=dis,
        gen_opt=tx.gen.init(gen),
        dis_opt=tx.dis.init(dis),
        kappa=jnp.float32(0),
    )


def abstract_state(nets: networks.Networks, tx: Optimisers, d: int) -> State:
    """Shapes and dtypes of the state for vectors of d columns, without any array."""
    features = nets.dis.features
    standardiser = {
        "mean": jax.ShapeDtypeStruct((d,), jnp.float32),
        "projection": jax.ShapeDtypeStruct((d, features), jnp.float32),
    }
    variances = jax.ShapeDtypeStruct((features,), jnp.float32)
    bits = nets.hash.bits
    rotation = jax.ShapeDtypeStruct((min(bits, features), bits), jnp.float32)
    initial = functools.partial(init_state, jax.random.key(0), nets, tx)
    return jax.eval_shape(initial, standardiser, variances, rotation)


def ordinal_terms(config, population: int, z, b, b_query, x_hat, batch: Batch, axis: str):
    """The ordinal losses of this device's anchors, on codes and on synthetic features.

    Anchors are queries, columns are base rows.

    Args:
        population: n, the rows that batches are drawn from.
        z, b, x_hat: `[A·G, P]`, `[A·G, K]`, `[A·G, P]`: this device's columns.
        b_query: `[A, K]`, the codes of its anchors as queries.
        batch: this device's slice of one step.
        axis: the mapped axis over which columns are gathered.

    Returns:
        (`[A]` on Hamming distances, `[A]` on ‖z_anchor - x̂_column‖²).
    """
    c = config.loss
    anchors, group = batch.rows.shape
    columns_z, columns_b, columns_x = (
        lax.all_gather(v, axis, tiled=True) for v in (lax.stop_gradient(z), b, x_hat)
    )
    own = lax.axis_index(axis) * anchors * group + jnp.arange(anchors) * group
    anchors_z = z[::group]
    distance = losses.squared_distances(anchors_z, columns_z)
    positives, in_batch = losses.batch_positives(distance, own, batch.draws, c.reach_share)
    # in-batch rank r stands for rank (r - ½) n / C in the whole set if columns are random; those
    # that are neighbours of anchors make it 1.4 (r = 30) to 5 times (r = 1) too large (NOTES)
    ranks = (in_batch - 0.5) * population / distance.shape[1]

    code_positives = jnp.concatenate(
        [(own + group - 1)[:, None], positives[:, : c.batch_positives]], 1
    )
    code_ranks = jnp.concatenate(
        [batch.neighbour_ranks[:, None].astype(jnp.float32), ranks[:, : c.batch_positives]], 1
    )
    on_codes = losses.ordinal(
        distance,
        losses.hamming(b_query, columns_b),
        code_positives,
        code_ranks,
        population,
        c.temperature_bits,
        jnp.ones(c.batch_positives + 1).at[0].set(c.neighbour_weight),
    )
    on_synthetic = losses.ordinal(
        distance,
        losses.squared_distances(anchors_z, columns_x),
        positives[:, c.batch_positives :],
        ranks[:, c.batch_positives :],
        population,
        c.temperature_synthetic,
        jnp.ones(c.batch_positives_synthetic),
    )
    return on_codes, on_synthetic


def gen_update(
    config, nets: networks.Networks, tx, state: State, z, batch: Batch, population: int, axis: str
) -> tuple[State, dict, jax.Array]:
    """One Adam step of the generator; the discriminator is left alone.

    Args:
        z: `[A·G, P]` standardised features of this device's rows.

    Returns:
        (state, means over all devices of the loss and its parts, x̂ `[A, P]` of this device's
        anchors before the update).
    """
    weight = config.loss
    group = batch.rows.shape[1]

    def loss_fn(gen: dict):
        u, u_query = networks.encode(nets, gen, z, group)
        width = config.model.straight_through_width
        b, b_query = (binarize.straight_through(v, width) for v in (u, u_query))
        x_hat, sparse_z = networks.decode(nets, gen, b)
        terms = {
            "reconstruction": jnp.mean(losses.reconstruction(z, x_hat)),
            "adversary": jnp.mean(networks.error(nets, state.dis, x_hat[::group])),
            "quantisation": jnp.mean(losses.quantisation(u)),
        }
        if weight.ordinal > 0 or weight.ordinal_synthetic > 0:
            on_codes, on_synthetic = ordinal_terms(
                config, population, z, b, b_query, x_hat, batch, axis
            )
            terms["ordinal"] = jnp.mean(on_codes)
            terms["ordinal_synthetic"] = jnp.mean(on_synthetic)
        terms = lax.pmean(terms, axis)
        loss = sum(weight[name] * value for name, value in terms.items())
        info = {f"train/loss_{name}": value for name, value in terms.items()}
        info["train/loss_gen"] = loss
        info["train/nonzero_share"] = lax.pmean(jnp.mean(sparse_z != 0), axis)
        return loss, (info, x_hat[::group])

    grads, (info, x_hat) = jax.grad(loss_fn, has_aux=True)(state.gen)
    updates, gen_opt = tx.gen.update(lax.pmean(grads, axis), state.gen_opt, state.gen)
    gen = optax.apply_updates(state.gen, updates)
    return state.replace(gen=gen, gen_opt=gen_opt), info, lax.stop_gradient(x_hat)


def dis_update(
    config, nets: networks.Networks, tx, state: State, z, x_hat, axis: str
) -> tuple[State, dict]:
    """One Adam step of the discriminator and of κ; the generator is left alone.

    Args:
        z, x_hat: `[A, P]` real and synthetic features of this device's anchors.
    """
    began = config.began

    def loss_fn(dis: dict):
        real, fake = networks.error(nets, dis, z), networks.error(nets, dis, x_hat)
        margin = began.gamma * lax.stop_gradient(lax.pmean(jnp.mean(real), axis))
        loss = jnp.mean(losses.discriminator(real, fake, state.kappa, margin))
        return lax.pmean((loss, (jnp.mean(real), jnp.mean(fake))), axis)

    (loss, (real, fake)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.dis)
    updates, dis_opt = tx.dis.update(lax.pmean(grads, axis), state.dis_opt, state.dis)
    dis = optax.apply_updates(state.dis, updates)
    kappa = losses.next_kappa(state.kappa, real, fake, began.gamma, began.rate, began.kappa_max)
    info = {
        "train/loss_dis": loss,
        "train/error_real": real,
        "train/error_synthetic": fake,
        "train/kappa": kappa,
    }
    return state.replace(dis=dis, dis_opt=dis_opt, kappa=kappa), info


@shared
def make_train_steps(config, nets: networks.Networks, tx, population: int, axis: str) -> Callable:
    """Makes `(state, training set [n, P], Batch of [S, ...]) -> (state, infos of [S])`.

    To be mapped over `axis` with the batch split and everything else replicated. Both updates
    see the same x̂, made before either.
    """

    def train_step(z_train: jax.Array, state: State, batch: Batch) -> tuple[State, dict]:
        z = z_train[batch.rows.reshape(-1)]
        state, gen_info, x_hat = gen_update(config, nets, tx, state, z, batch, population, axis)
        anchors = z[:: batch.rows.shape[1]]
        state, dis_info = dis_update(config, nets, tx, state, anchors, x_hat, axis)
        return state.replace(step=state.step + 1), gen_info | dis_info

    def train_steps(state: State, z_train: jax.Array, batches: Batch) -> tuple[State, dict]:
        return lax.scan(lambda s, b: train_step(z_train, s, b), state, batches)

    return train_steps
