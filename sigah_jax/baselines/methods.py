"""The baselines by name, each with all of its settings: what a table compares.

Not responsible for any method: one file each.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sigah_jax.baselines import itq, lsh, pca


class Method(NamedTuple):
    """A baseline."""

    fit: Callable  # (key, xt [n, d], bits) -> params
    project: Callable  # (params, x [B, d]) -> [B, K]; code bit k is its entry k > 0
    random: bool = True  # fitted by the key; otherwise one seed says all


METHODS = {
    "lsh": Method(lsh.fit, lsh.project),
    "pca_rr": Method(pca.fit, pca.project),
    "itq": Method(partial(itq.fit, iterations=50), itq.project),  # Gong and Lazebnik 2011
}
