"""Gradient descent, as the methods that learn a network or a generative model share it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

TRAIN_ROWS = 1 << 16  # of a larger training set a sample of this size is used
FINAL_RATE_SHARE = 0.01  # ours: what is left of the rate at the end of the cosine schedule


@partial(jax.jit, static_argnames=("loss", "rate", "total"))
def descend(
    params: Any, state: Any, data: Any, draws: Any, loss: Callable, rate: float, total: int
) -> tuple[Any, Any, jax.Array]:
    """Adam on the sum of `loss(params, data, draw)`, one update for each draw.

    The rate falls by a cosine from `rate` to FINAL_RATE_SHARE of it over `total` updates.

    Args:
        params: a tree of arrays.
        state: of an earlier call that this one continues, None at the start.
        data: passed on to the loss whole.
        draws: [S, ...], what differs from update to update: PRNG keys, or rows of a batch.
        loss: a function of the module's top level, so that it is compiled once a shape. It gives a
            scalar or its terms.

    Returns:
        The last parameters and state, and the losses [S, ...] before each update.
    """
    tx = optax.adam(optax.cosine_decay_schedule(rate, total, FINAL_RATE_SHARE))

    def summed(params: Any, draw: Any) -> tuple[jax.Array, jax.Array]:
        terms = loss(params, data, draw)
        return jnp.sum(terms), terms

    def step(carry: tuple, draw: Any) -> tuple[tuple, jax.Array]:
        params, state = carry
        gradient, terms = jax.grad(summed, has_aux=True)(params, draw)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), terms

    first = tx.init(params) if state is None else state
    (params, state), losses = jax.lax.scan(step, (params, first), draws)
    return params, state, losses
