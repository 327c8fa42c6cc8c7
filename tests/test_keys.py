"""Keys by purpose differ from one another and from the seed's own."""

import jax
import numpy as np

from sigah_jax.model.keys import Purpose, key_for


def test_no_two_purposes_or_seeds_share_a_key():
    keys = [key_for(seed, purpose) for seed in range(3) for purpose in Purpose]
    keys += [jax.random.key(seed) for seed in range(3)]
    data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
    assert len(data) == len(keys)


def test_a_key_depends_on_seed_and_purpose_alone():
    one, again = (key_for(7, Purpose.ROTATION) for _ in range(2))
    np.testing.assert_array_equal(jax.random.uniform(one, (3,)), jax.random.uniform(again, (3,)))
