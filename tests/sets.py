"""Small sets of vectors and measures, shared by tests."""

import gzip
import json
from pathlib import Path

import numpy as np

import sigah_jax
from sigah_jax.retrieval import codes, histograms, metrics, neighbours


def low_dimensional(n: int, d: int) -> np.ndarray:
    """Rows near a curved 6-dimensional sheet in d columns, far from the origin."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 6))
    rows = z @ rng.normal(size=(6, d)) + np.sin(2 * z @ rng.normal(size=(6, 8))) @ rng.normal(
        size=(8, d)
    )
    return (rows + 0.05 * rng.normal(size=(n, d)) + 7).astype(np.float32)


def flat_rows(n: int, seed: int = 0) -> np.ndarray:
    """Rows on a plane of 6 dimensions in 40, with a mean far from zero, [n, 40] f32."""
    plane = np.linalg.qr(np.random.default_rng(9).normal(size=(40, 6)))[0]
    return (np.random.default_rng(seed).normal(size=(n, 6)) @ plane.T + 3).astype(np.float32)


def recall(codes: np.ndarray, x: np.ndarray, queries: int) -> float:
    """Share of the 10 nearest rows within the first 50 by Hamming distance, ties by id."""
    found = []
    for i in range(queries):
        d = np.sum((x - x[i]) ** 2, axis=1)
        h = np.sum(codes != codes[i], axis=1)
        d[i], h[i] = np.inf, codes.shape[1] + 1
        near = np.argsort(d, kind="stable")[:10]
        found.append(np.isin(near, np.argsort(h, kind="stable")[:50]).mean())
    return float(np.mean(found))


def rows(n: int, d: int, rank: int) -> np.ndarray:
    """Rows near a subspace of this rank, of variances that fall by a third a direction."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    scores = rng.normal(size=(n, d)) * np.where(np.arange(d) < rank, 0.82 ** np.arange(d), 0.02)
    return (scores @ basis.T + 3 * rng.normal(size=d)).astype(np.float32)


def mean_average_precision(project, params, xq: np.ndarray, xb: np.ndarray, nearest: int) -> float:
    """Of the `nearest` rows by Euclidean distance, ranked by the signs of projections."""
    truth = neighbours.nearest_sets(xq, xb, (nearest,), "cpu")
    uq, ub = (np.asarray(project(params, x)) for x in (xq, xb))
    cq, cb = (np.asarray(codes.pack(u > 0)) for u in (uq, ub))
    h = histograms.distance_histograms(cq, cb, truth, (nearest,), uq.shape[1], "cpu")
    return metrics.average_precision(h.total, h.relevant[0]).mean()


def neighbour_share(project, params, q: np.ndarray, x: np.ndarray) -> float:
    """Share of the 20 nearest rows among the first 20 by Hamming distance, ties by row."""
    nearest = np.argsort(np.linalg.norm(q[:, None] - x, axis=2), axis=1)[:, :20]
    cq, cb = (np.asarray(project(params, rows)) > 0 for rows in (q, x))
    found = np.argsort((cq[:, None] != cb).sum(axis=2), axis=1, kind="stable")[:, :20]
    return np.mean([len(np.intersect1d(f, n)) / 20 for f, n in zip(found, nearest, strict=True)])


def correlated_rows(n: int, d: int) -> np.ndarray:
    """Rows with a mean far from zero and variances that fall by a factor of 1.5 a direction."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(d, d)))
    scores = rng.normal(size=(n, d)) * 1.5 ** (-np.arange(d) / 2)
    return (scores @ basis.T + 5 * rng.normal(size=d)).astype(np.float32)


def mnist_images() -> np.ndarray:
    """20,000 MNIST images, [20000, 784] f32 in 0..1."""
    path = Path(sigah_jax.__file__).parent / "data/mnist/train-images-idx3-ubyte.gz"
    with gzip.open(path) as file:
        pixels = np.frombuffer(file.read(16 + 20_000 * 784), np.uint8, offset=16)
    return pixels.reshape(-1, 784).astype(np.float32) / 255


def quantisation_loss(rotated: np.ndarray) -> float:
    """The mean squared distance of rows to their codes in -1 and +1."""
    return np.mean(np.sum((np.where(rotated > 0, 1, -1) - rotated) ** 2, axis=1))


def figures(path: Path) -> dict:
    """The metrics of a results file but for times."""
    metrics = json.loads(path.read_text())["metrics"]
    for values in metrics.values():
        for name in ("ms_per_query", "encode_secs"):
            values.pop(name, None)
    return metrics
