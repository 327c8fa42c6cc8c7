"""The baselines by name."""

import jax
import numpy as np
import pytest
import sets

from sigah_jax.baselines.methods import METHODS
from sigah_jax.devices import parallel
from sigah_jax.training import evaluate


@pytest.mark.parametrize("method", ["itq", "kmh", "spreading"])
def test_codes_are_the_same_where_doubles_are_the_default(method):
    x = sets.low_dimensional(800, 16)

    def encode():
        params = METHODS[method].fit(jax.random.key(0), x, 8)
        return parallel.map_rows(evaluate.packed(METHODS[method].project), 64)(params, x)

    wanted = encode()
    with jax.enable_x64(True):  # what JAX_ENABLE_X64=1 sets
        np.testing.assert_array_equal(encode(), wanted)
