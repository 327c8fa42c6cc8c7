"""The encoder in numpy alone, for a file of `python -m sigah_jax.export --output=encoder.npz`.

    arrays = dict(np.load("encoder.npz"))
    codes = encode(arrays, x)

Imports nothing of this package: copy it to where codes are made. Rows with NaN or infinity are
not refused.
"""

import numpy as np


def project(arrays: dict, x: np.ndarray) -> np.ndarray:
    """Real projections: `[n, d] -> u [n, K] f32`."""
    z = (x.astype(np.float32) - arrays["mean"]) @ arrays["projection"]
    h, layers = z, sum(name.startswith("kernel") for name in arrays)
    for i in range(layers):
        h = h @ arrays[f"kernel{i}"] + arrays[f"bias{i}"]
        if i < layers - 1:
            h = np.maximum(h, 0)
    return h + z @ arrays["linear"]


def encode(arrays: dict, x: np.ndarray) -> np.ndarray:
    """Packed codes: `[n, d] -> [n, W] u1`."""
    return np.packbits(project(arrays, x) > 0, axis=1)
