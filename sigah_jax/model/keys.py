"""Random keys by purpose: one seed a run, and no key that is used twice."""

import enum

import jax


class Purpose(enum.IntEnum):
    """What a key is for; a new purpose gets a new number, so that the others keep their draws."""

    PARAMETERS = 0  # of the networks, before the first step
    ROTATION = 1  # that the hash network starts from
    REFIT = 2  # parameters of the refitted decoder
    BASELINE = 3  # all that a baseline draws


def key_for(seed: int, purpose: Purpose) -> jax.Array:
    """The key of `seed` for one purpose."""
    return jax.random.fold_in(jax.random.key(seed), purpose)
