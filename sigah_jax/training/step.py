"""The training step: state, generator update, discriminator update, and many steps a call.

Shapes: S steps a call, A anchors and G rows a group on one device, N neighbours an anchor, n
training rows, m training queries, P features, K bits. Symbols: z features, u real projections, b
codes in {-1, +1}, ẑ synthetic features, s sparse codes.

A batch is A groups of G rows. The first row of a group is an anchor; with a neighbour graph the
last N are true neighbours of the anchor; the rest are random. Where queries differ from base
rows, by `retrieval.metric` or because they were given, a query is the anchor, and the first row is
random too. All rows of all groups on all devices are the columns that anchors are compared with;
several neighbours (N > 1) are columns of their own anchor alone. The adversary sees the anchors
alone, whose number is enough for it. A device's groups are one slice of the global batch, so the
columns stand in the same order for every number of devices.

A term of the loss whose weight is 0 is not computed, and without an adversary neither is the
discriminator.

Not responsible for choosing rows (`batches`) nor for devices (`parallel`): the functions
here name a mapped axis and reduce over it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import lax
from ml_collections import config_dict

from sigah_jax.model import binarize, losses, networks
from sigah_jax.retrieval import codes
from sigah_jax.training import objective
from sigah_jax.training.batches import Batch

PARTS = ("model", "loss", "began", "optim", "train")  # of the config, all that a step depends on


@struct.dataclass
class State:
    """All that training changes, and the standardiser that its features went through."""

    step: jax.Array  # i32, updates done
    standardiser: dict  # constant; kept here so that a checkpoint is complete
    gen: dict
    dis: dict
    gen_opt: Any  # of the parts of the generator that are trained
    dis_opt: Any
    kappa: jax.Array  # f32, BEGAN's κ


class Training(NamedTuple):
    """What is trained, and towards what; equal ones share what JAX compiles."""

    nets: networks.Networks
    parts: tuple[str, ...]  # of the generator that move: "hash", "decoder"
    weights: objective.Weights
    steps: int


class Rows(NamedTuple):
    """The training rows, and the training queries where they are not these rows.

    Or what a step takes of both, returned by `gather`: `[A·G, ...]` its columns, and of queries
    `[A, P]` its anchors.
    """

    z: jax.Array | np.ndarray  # [n, P] f32
    codes: jax.Array | np.ndarray | None  # [n, W] u1 where the hash network stands still; else None
    queries: jax.Array | np.ndarray | None = None  # [m, P] f32


def gather(rows: Rows, batch: Batch) -> Rows:
    """The rows of a batch, of one step, or of S with S in front of every shape.

    NumPy's arrays are gathered on the host, JAX's on their device.
    """
    columns = batch.rows.reshape(*batch.anchors.shape[:-1], -1)
    asked = None if rows.queries is None else rows.queries[batch.anchors]
    found = jax.tree.map(lambda a: a[columns], rows._replace(queries=None))
    return found._replace(queries=asked)


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
def make_optimisers(config, training: Training) -> Optimisers:
    """Adam for both nets, cosine from the initial rate to `final_lr_share` of it.

    The sparse decoder's steps are `decoder_lr_factor` times those of the hash network.
    """
    o = config.optim

    def adam(lr: float) -> optax.GradientTransformation:
        schedule = optax.cosine_decay_schedule(lr, training.steps, o.final_lr_share)
        return optax.adam(schedule, b1=o.adam_b1, b2=o.adam_b2)

    faster = {part: part == "decoder" for part in training.parts}
    gen = optax.chain(adam(o.gen_lr), optax.masked(optax.scale(o.decoder_lr_factor), faster))
    return Optimisers(gen, adam(o.dis_lr))


def moving(training: Training, gen: dict) -> dict:
    """The parts of the generator's parameters that are trained."""
    return {part: gen[part] for part in training.parts}


def init_state(
    key: jax.Array,
    training: Training,
    tx: Optimisers,
    standardiser: dict,
    variances: jax.Array,
    rotation: jax.Array,
) -> State:
    """The state before the first step; a pure function of its arguments.

    Args:
        standardiser, variances: returned by `init_standardiser`.
        rotation: see `networks.init_gen`.
    """
    gen_key, dis_key = jax.random.split(key)
    gen = networks.init_gen(gen_key, training.nets.gen, variances, rotation)
    dis = networks.init_dis(dis_key, training.nets.dis)
    return begin(training, tx, standardiser, gen, dis, jnp.float32(0))


def begin(
    training: Training, tx: Optimisers, standardiser: dict, gen: dict, dis: dict, kappa: jax.Array
) -> State:
    """The state before the first step of a training of these parameters."""
    return State(
        step=jnp.int32(0),
        standardiser=standardiser,
        gen=gen,
        dis=dis,
        gen_opt=tx.gen.init(moving(training, gen)),
        dis_opt=tx.dis.init(dis),
        kappa=kappa,
    )


def abstract_state(training: Training, tx: Optimisers, d: int) -> State:
    """Shapes and dtypes of the state for vectors of d columns, without any array."""
    bits, features = training.nets.gen.hash.bits, training.nets.dis.features
    f32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    standardiser = {"mean": f32((d,)), "projection": f32((d, features))}
    initial = functools.partial(init_state, jax.random.key(0), training, tx)
    rotation = f32((min(bits, features), bits))
    return jax.eval_shape(initial, standardiser, f32((features,)), rotation)


def gen_update(
    config, training: Training, tx, state: State, rows: Rows, batch: Batch, population, axis: str
) -> tuple[State, dict, jax.Array]:
    """One Adam step of the generator; the discriminator is left alone.

    Args:
        rows: of this device's columns, and its anchors.

    Returns:
        (state, means over all devices of the loss and its parts, ẑ `[A, P]` of this device's
        anchors before the update).
    """
    nets, weights = training.nets, training.weights
    z, group, width = rows.z, batch.rows.shape[1], config.model.straight_through_width
    anchors_z = z[::group] if rows.queries is None else rows.queries

    def loss_fn(parts: dict):
        gen = state.gen | parts
        if rows.codes is None:
            u, u_query = networks.encode(nets.gen, gen, z, group)
            if rows.queries is not None:
                _, u_query = networks.encode(nets.gen, gen, rows.queries)
            b, b_query = (binarize.straight_through(v, width) for v in (u, u_query))
        else:  # the terms of u and of queries have no weight
            u = b_query = None
            b = codes.signs(rows.codes, config.model.bits)
        z_hat, s = networks.decode(nets.gen, gen, b)
        terms = {}
        if weights.reconstruction > 0:
            terms["reconstruction"] = losses.reconstruction(z, z_hat)
        if weights.adversary > 0:
            terms["adversary"] = networks.error(nets.dis, state.dis, z_hat[::group])
        if weights.quantisation > 0:
            terms["quantisation"] = losses.quantisation(u)
        if weights.ordinal > 0 or weights.ordinal_synthetic > 0:
            anchors = objective.Anchors(anchors_z, b_query)
            columns = objective.Columns(z, b, z_hat)
            terms |= objective.ordinal_terms(
                config, weights, population, anchors, columns, batch, axis
            )
        terms = lax.pmean({name: jnp.mean(value) for name, value in terms.items()}, axis)
        loss = sum(getattr(weights, name) * value for name, value in terms.items())
        info = {f"train/loss_{name}": value for name, value in terms.items()}
        info["train/loss_gen"] = loss
        info["train/nonzero_share"] = lax.pmean(jnp.mean(s != 0), axis)
        return loss, (info, z_hat[::group])

    parts = moving(training, state.gen)
    grads, (info, z_hat) = jax.grad(loss_fn, has_aux=True)(parts)
    updates, gen_opt = tx.gen.update(lax.pmean(grads, axis), state.gen_opt, parts)
    gen = state.gen | optax.apply_updates(parts, updates)
    return state.replace(gen=gen, gen_opt=gen_opt), info, lax.stop_gradient(z_hat)


def dis_update(
    config, net: networks.AutoEncoder, tx, state: State, z, z_hat, axis: str
) -> tuple[State, dict]:
    """One Adam step of the discriminator and of κ; the generator is left alone.

    Args:
        z, z_hat: `[A, P]` real and synthetic features of this device's anchors.
    """
    began = config.began

    def loss_fn(dis: dict):
        real, fake = networks.error(net, dis, z), networks.error(net, dis, z_hat)
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
def make_train_steps(
    config,
    training: Training,
    tx: Optimisers,
    population: objective.Population,
    axis: str,
    gathered: bool,
) -> Callable:
    """Makes `(state, Rows of [n, ...], Batch of [S, ...]) -> (state, infos of [S])`.

    To be mapped over `axis` with the batch split and everything else replicated. Both updates
    see the same ẑ, made before either.

    Args:
        gathered: the rows are those of the batch, `[S, ...]` and split as it is, in place of all.
    """

    def train_step(state: State, rows: Rows, batch: Batch) -> tuple[State, dict]:
        state, info, z_hat = gen_update(config, training, tx, state, rows, batch, population, axis)
        if training.weights.adversary > 0:
            anchors = rows.z[:: batch.rows.shape[1]]
            state, of_dis = dis_update(config, training.nets.dis, tx, state, anchors, z_hat, axis)
            info |= of_dis
        return state.replace(step=state.step + 1), info

    def train_steps(state: State, rows: Rows, batches: Batch) -> tuple[State, dict]:
        if gathered:
            return lax.scan(lambda s, x: train_step(s, *x), state, (rows, batches))
        return lax.scan(lambda s, b: train_step(s, gather(rows, b), b), state, batches)

    return train_steps
