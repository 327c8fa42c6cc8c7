"""The encoder in numpy alone, for a file of `python -m sigah_jax.export --output=encoder.npz`.

    arrays = dict(np.load("encoder.npz"))
    codes = encode(arrays, x)              # of what is stored
    query_codes = encode_queries(arrays, q)  # of what is searched for

Imports nothing of this package: copy it to where codes are made. Rows with NaN or infinity are
not refused, and the mask of a masked array is ignored.

Shapes: d columns, K bits, W packed bytes; `...` are any leading axes, usually n rows.
"""

import numpy as np


def project(arrays: dict, x: np.ndarray, head: str = "query_") -> np.ndarray:
    """Real projections of queries, with `head=""` of base rows: `[..., d] -> u [..., K] f32`."""
    z = h = (x.astype(np.float32) - arrays["mean"]) @ arrays["projection"]
    for i in range(sum(name.startswith("kernel") for name in arrays)):
        h = np.maximum(h @ arrays[f"kernel{i}"] + arrays[f"bias{i}"], 0)
    return h @ arrays[f"{head}out"] + arrays[f"{head}out_bias"] + z @ arrays["linear"]


def encode(arrays: dict, x: np.ndarray) -> np.ndarray:
    """Packed codes of base rows: `[..., d] -> [..., W] u1`."""
    return np.packbits(project(arrays, x, "") > 0, axis=-1)


def encode_queries(arrays: dict, x: np.ndarray) -> np.ndarray:
    """Packed codes of queries: `[..., d] -> [..., W] u1`."""
    return np.packbits(project(arrays, x) > 0, axis=-1)
