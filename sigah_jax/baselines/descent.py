"""Gradient descent, as the methods that learn a network or a generative model share it.

Not responsible for a method's loss, nor for how it draws a batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

TRAIN_ROWS = 1 << 16  # of a larger training set a sample of this size is used
FINAL_RATE_SHARE = 0.01  # ours: what is left of the rate at the end of the cosine schedule


def adam(rate: float, steps: int) -> optax.GradientTransformation:
    """Adam whose rate falls by a cosine from `rate` to FINAL_RATE_SHARE of it in `steps` steps."""
    return optax.adam(optax.cosine_decay_schedule(rate, steps, FINAL_RATE_SHARE))


@partial(jax.jit, static_argnames=("loss", "steps", "rate"))
def descend(
    key: jax.Array,
    params: Any,
    x: jax.Array,
    loss: Callable[[Any, jax.Array, jax.Array], jax.Array],
    steps: int,
    rate: float,
) -> tuple[Any, jax.Array]:
    """`adam` on `loss(params, x, key)`.

    Args:
        key: PRNG key, split into one a step.
        params: first parameters, a tree of arrays.
        x: data, passed on whole; the loss draws its batch by its key.
        loss: a function of the module's top level, so that it is compiled once a shape.
        steps: S.
        rate: the first learning rate.

    Returns:
        The last parameters and the losses [S] before each update.
    """
    tx = adam(rate, steps)

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, x, key)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    keys = jax.random.split(key, steps)
    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), keys)
    return params, losses
