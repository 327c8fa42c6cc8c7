"""The baselines by name, each with all of its settings: what a table compares.

Not responsible for any method: one file each, with `fit` and `project` as in `Method`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from sigah_jax.baselines import (
    agh,
    bae,
    isohash,
    itq,
    kmh,
    linear,
    lsh,
    och,
    pca_rr,
    pca_sign,
    sgen,
    sgh,
    sh,
    sign,
    sph,
    spreading,
)
from sigah_jax.devices import parallel


class Method(NamedTuple):
    """A baseline.

    `fit(key, xt [n, d], bits)` gives the parameters; rows may be of any real dtype, and a key that
    is not used is there for the common signature. It raises BitsRefused where the method cannot
    have codes of K bits on this data.

    `project(params, x [B, d])` gives `[B, K] f32`, and code bit k is entry k > 0. Sums are in full
    float32 precision on every device: a bit is a sign, and a rounded product near zero flips it.
    Packing is `retrieval.codes`.
    """

    fit: Callable
    project: Callable
    random: bool = True  # fitted by the key; otherwise one seed says all
    # a distance of its own in place of Hamming's: bits -> (groups, count) of `histograms`
    own_distance: Callable | None = None


def _fit_spreading(key: jax.Array, xt: np.ndarray, bits: int) -> spreading.SpreadingNet:
    """Ours: a quarter of the authors' width, 15 of their 160 epochs, a weight by the bits."""
    weight = spreading.weight_of(bits)
    return spreading.fit(key, xt, bits, epochs=15, width=256, koleo_weight=weight)


_SETTINGS = {
    "sign": Method(sign.fit, sign.project, random=False),
    "lsh": Method(lsh.fit, linear.project),
    "pca_sign": Method(pca_sign.fit, linear.project, random=False),
    "pca_rr": Method(pca_rr.fit, linear.project),
    "sh": Method(sh.fit, sh.project, random=False),
    "itq": Method(partial(itq.fit, iterations=50), linear.project),  # Gong and Lazebnik 2011
    "isohash": Method(partial(isohash.fit, iterations=100), linear.project),
    "sph": Method(partial(sph.fit, rows=10_000, iterations=100), sph.project),
    "sph_own": Method(
        partial(sph.fit, rows=10_000, iterations=100),
        sph.project,
        own_distance=sph.spherical_groups,
    ),
    "kmh": Method(
        partial(kmh.fit, subspace_bits=4, rows=20_000, iterations=50, affinity=10.0), kmh.project
    ),
    # ours: 300 anchors, 30 of them near; 3 and 10 near were worse
    "agh1": Method(partial(agh.fit, anchors=300, nearest=30, layers=1), agh.project),
    "agh2": Method(partial(agh.fit, anchors=300, nearest=30, layers=2), agh.project),
    "sgh": Method(partial(sgh.fit, bases=300, rounds=1), sgh.project),
    # ours: 32 components; of 16, 32, 48 and 64 the best on validation queries of three sets
    "och": Method(
        partial(och.fit, landmarks=300, nearest=10, components=32, iterations=50), linear.project
    ),
    "sgen": Method(partial(sgen.fit, steps=1000), linear.project),  # ours: 2,500 are no better
    "spreading": Method(_fit_spreading, spreading.project),
    "bae": Method(partial(bae.fit, steps=800, widths=(512, 512)), bae.project),
}
METHODS = {
    name: method._replace(fit=parallel.default_settings()(method.fit))
    for name, method in _SETTINGS.items()
}
