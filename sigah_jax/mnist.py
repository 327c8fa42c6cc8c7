"""The config of MNIST, which the package embeds; a training without --config takes it."""

from sigah_jax import config as base


def get_config(arguments: str = ""):
    """`arguments`: see `sigah_jax.config.get_config`."""
    config = base.get_config(arguments)
    config.data.name = "mnist"
    return config
