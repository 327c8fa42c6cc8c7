"""The baselines by name, each with all of its settings: what a table compares.

The module of a method is imported when it is used, so that names are checked without JAX.

Not responsible for any method: each has a file of its own.
"""

import functools
import importlib
from collections.abc import Callable
from typing import NamedTuple


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


@functools.cache  # one object for a function: see `parallel.pmap`
def _of(module: str, function: str, **settings) -> Callable:
    """A function of a module of this package, with settings."""

    def call(*args):
        found = importlib.import_module(f"sigah_jax.baselines.{module}")
        return getattr(found, function)(*args, **settings)

    return call


def _method(module: str, random: bool = True, **settings) -> Method:
    return Method(_of(module, "fit", **settings), _of(module, "project"), random)


def _linear(module: str, random: bool = True, **settings) -> Method:
    """A method whose codes are signs of a linear map."""
    return Method(_of(module, "fit", **settings), _of("linear", "project"), random)


def _fit_spreading(key, xt, bits: int):
    """Ours: a quarter of the authors' width, 15 of their 160 epochs, a weight by the bits."""
    from sigah_jax.baselines import spreading

    weight = spreading.weight_of(bits)
    return spreading.fit(key, xt, bits, epochs=15, width=256, koleo_weight=weight)


def _guarded(fit: Callable) -> Callable:
    """`fit` as JAX compiles without what a user has set."""

    def guarded(key, xt, bits: int):
        from sigah_jax.devices import parallel

        with parallel.default_settings():
            return fit(key, xt, bits)

    return guarded


_SETTINGS = {
    "sign": _method("sign", random=False),
    "lsh": _linear("lsh"),
    "pca_sign": _linear("pca_sign", random=False),
    "pca_rr": _linear("pca_rr"),
    "sh": _method("sh", random=False),
    "itq": _linear("itq", iterations=50),  # Gong and Lazebnik 2011
    "isohash": _linear("isohash", iterations=100),
    "sph": _method("sph", rows=10_000, iterations=100),
    "sph_own": _method("sph", rows=10_000, iterations=100)._replace(
        own_distance=_of("sph", "spherical_groups")
    ),
    "kmh": _method("kmh", subspace_bits=4, rows=20_000, iterations=50, affinity=10.0),
    # ours: 300 anchors, 30 of them near; 3 and 10 near were worse
    "agh1": _method("agh", anchors=300, nearest=30, layers=1),
    "agh2": _method("agh", anchors=300, nearest=30, layers=2),
    "sgh": _method("sgh", bases=300, rounds=1),
    # ours: 32 components; of 16, 32, 48 and 64 the best on validation queries of three sets
    "och": _linear("och", landmarks=300, nearest=10, components=32, iterations=50),
    "sgen": _linear("sgen", steps=1000),  # ours: 2,500 are no better
    "spreading": _method("spreading")._replace(fit=_fit_spreading),
    "bae": _method("bae", steps=800, widths=(512, 512)),
}
METHODS = {name: method._replace(fit=_guarded(method.fit)) for name, method in _SETTINGS.items()}
