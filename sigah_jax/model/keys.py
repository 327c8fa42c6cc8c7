"""PRNG keys by purpose, so that no two uses of a seed draw the same numbers."""

import enum

import jax


class Purpose(enum.IntEnum):
    """What a key is for. A number is part of every result: never change one, only add."""

    PARAMETERS = 0  # the first parameters of the networks
    ROTATION = 1  # the first rotation, from which ITQ's is found
    DECODER = 2  # the first parameters of a decoder that is trained on its own
    BASELINE = 3  # one key for all baselines: variants of a method begin at the same draw


def key_for(seed: int, purpose: Purpose) -> jax.Array:
    """The key of a purpose, to be split, or used once."""
    return jax.random.fold_in(jax.random.key(seed), purpose)
