"""The encoder in numpy alone, for a file of `Hasher.save`, or of `python -m sigah_jax.export`.

    arrays = dict(np.load("encoder.npz"))
    codes = encode(arrays, x)              # of what is stored
    query_codes = encode_queries(arrays, q)  # of what is searched for

Imports nothing of this package: copy it to where codes are made. Codes are not refined, whatever
the file says. Rows go through the metric of the file, see `retrieval.metric`. Rows with NaN or
infinity and rows without a cosine are not refused, and the mask of a masked array is ignored.

Shapes: d columns, K bits, W packed bytes; `...` are any leading axes, usually n rows.
"""

import json

import numpy as np


def points(arrays: dict, x: np.ndarray, queries: bool) -> np.ndarray:
    """Rows as points whose Euclidean order is that of the file's metric: `[..., d] -> f32`."""
    x, metric = np.asarray(x, np.float32), json.loads(str(arrays["about"])).get("metric", "l2")
    if metric == "l2":
        return x
    if metric == "ip" and not queries:
        x = x / arrays["standardiser/largest"]
        squared = (x * x).sum(axis=-1, keepdims=True)
        longer = np.maximum(squared, 1)
        return np.concatenate([x / np.sqrt(longer), np.sqrt(1 - squared / longer)], axis=-1)
    least = np.finfo(np.float32).tiny  # of a divisor
    x = x / np.maximum(abs(x).max(axis=-1, keepdims=True), least)
    x = x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), least)
    return np.concatenate([x, 0 * x[..., :1]], axis=-1) if metric == "ip" else x


def project(arrays: dict, x: np.ndarray, queries: bool = True) -> np.ndarray:
    """Real projections of queries, otherwise of base rows: `[..., d] -> u [..., K] f32`."""
    x = points(arrays, x, queries)
    z = (x - arrays["standardiser/mean"]) @ arrays["standardiser/projection"]
    net = {name.removeprefix("gen/hash/"): array for name, array in arrays.items()}
    h = z * np.float32(np.sqrt(z.shape[-1]))
    for i in range(sum(name.startswith("hidden") for name in net) // 2):
        h = np.maximum(h @ net[f"hidden{i}/kernel"] + net[f"hidden{i}/bias"], 0)
    u = h @ net["out/kernel"] + net["out/bias"]
    if "linear/kernel" in net:
        u += z @ net["linear/kernel"]
    if queries and "query_out/kernel" in net:
        u += h @ net["query_out/kernel"] + net["query_out/bias"]
    return u


def encode(arrays: dict, x: np.ndarray) -> np.ndarray:
    """Packed codes of base rows, not refined: `[..., d] -> [..., W] u1`."""
    return np.packbits(project(arrays, x, queries=False) > 0, axis=-1)


def encode_queries(arrays: dict, x: np.ndarray) -> np.ndarray:
    """Packed codes of queries: `[..., d] -> [..., W] u1`."""
    return np.packbits(project(arrays, x) > 0, axis=-1)
