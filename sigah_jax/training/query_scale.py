"""By how much features of queries are scaled before synthetic features rank rows: β.

On some data rows far from the centre are decoded better than others. Then ‖z - ẑ‖² ranks them too
low, and ‖β z - ẑ‖² with β > 1, where the norm of ẑ counts for less, finds more of the nearest rows
(research log). On other data β = 1 is best. So a run asks its validation queries. ours.

Shapes: V validation queries, n rows, d columns, W packed bytes.

Not responsible for the ranking itself: `encoder.searching`.
"""

import numpy as np

from sigah_jax.encoder.hasher import Hasher
from sigah_jax.retrieval import euclidean, evenly, neighbours

SCALES = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0)
NEAREST = 10  # rows of a query that are to be found
MOST_ROWS = 40_000  # among which; of more, as many evenly


def chosen(h: Hasher, xv: np.ndarray, xb: np.ndarray, packed: np.ndarray, engine: str) -> float:
    """The first of `SCALES` by which most of the `NEAREST` rows of the queries are found.

    Args:
        xv: `[V, d]`; xb: `[n, d]`: queries and rows that went through the metric of h.
        packed: `[n, W] u1`, the codes of the rows.
        engine: as in `euclidean.knn`.
    """
    xb, packed = evenly.of(xb, MOST_ROWS), evenly.of(packed, MOST_ROWS)
    nearest = min(NEAREST, len(xb))
    truth = neighbours.nearest_sets(xv, xb, (nearest,), engine)
    z, z_hat = h.features(xv), h.decode(packed)

    def recall(scale: float) -> float:
        found = euclidean.knn(np.float32(scale) * z, z_hat, nearest, engine)[1]
        return neighbours.recall(xv, xb, found, truth)

    return SCALES[int(np.argmax([recall(scale) for scale in SCALES]))]
