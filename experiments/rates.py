"""How fast the parts are on the devices that JAX finds, beside the CPU, and beside a bound.

Every function returns `Rate`s: what was measured here, by faiss or numpy on the CPU of the same
machine, and what the devices could do if nothing but the products, the comparisons or the copies
took time. `bounds` measures what the devices can do. Inputs are stand-ins (`data.synthetic`).

Shapes: Q queries, N rows, d columns, k neighbours.

Not responsible for training (`training_rate`), equality (`equality`) nor for what is shown
(`accelerator`). The parts of `speed` compare sides of equal work; here the sides differ in size.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import speed
from sigah_jax.devices import parallel
from sigah_jax.encoder import hasher
from sigah_jax.model import refine
from sigah_jax.process.blas import faiss
from sigah_jax.retrieval import euclidean, hamming, metrics, neighbours
from sigah_jax.run import watching

LONG_SECS = 20  # a call that takes longer is not repeated
BITS, MU = 64, 0.01
GRAPH_K = 64  # as `train.graph_neighbours`


class Sizes(NamedTuple):
    """How much is measured."""

    queries: int
    rows: int  # of ground truth, graph and Hamming search
    more_rows: int  # of Hamming search alone
    train_rows: int
    steps: int
    anchors: int  # a step
    encoded_rows: dict[int, int]  # columns -> rows
    matrix: int  # side of a square matrix
    copied_bytes: int
    peer_pairs: int  # comparisons of the peer, which has fewer queries if need be


FULL = Sizes(
    queries=10_000,
    rows=10**6,
    more_rows=10**8,
    train_rows=20_000,
    steps=400,
    anchors=256,
    encoded_rows={96: 10**6, 960: 200_000},
    matrix=8192,
    copied_bytes=2**30,
    peer_pairs=2 * 10**10,
)
SMALL = Sizes(
    queries=40,
    rows=2_000,
    more_rows=4_000,
    train_rows=1_500,
    steps=40,
    anchors=16,
    encoded_rows={24: 1_000},
    matrix=256,
    copied_bytes=2**20,
    peer_pairs=10**5,
)


class Rate(NamedTuple):
    """One row of the table; a rate is work a second, None where it was not measured."""

    what: str
    unit: str
    here: float
    peer: str
    peer_rate: float | None
    bound: str
    bound_rate: float
    peak_bytes: int | None  # of the fullest device, of all that the process has done so far


def timed(function: Callable[[], object]) -> float:
    """Median seconds of three calls after the one that compiles.

    A call that takes longer than `LONG_SECS` is the last, and its seconds are returned.
    """
    seconds = []
    while len(seconds) < 4:
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > LONG_SECS:
            return seconds[-1]
    return statistics.median(seconds[1:])


def peak_bytes() -> int | None:
    return watching.memory().get("memory/peak_bytes")


def bounds(sizes: Sizes) -> dict[str, float]:
    """What one device can do: float32 products by precision in FLOP/s, and copies in bytes/s."""
    side, found = sizes.matrix, {}
    square = jnp.ones((side, side), jnp.float32)
    for precision in ("highest", "default"):
        product = jax.jit(functools.partial(jnp.matmul, precision=precision))
        seconds = timed(lambda: product(square, square).block_until_ready())  # noqa: B023
        found[precision] = 2 * side**3 / seconds
    on_host = np.zeros(sizes.copied_bytes // 4, np.float32)
    to_device = timed(lambda: jax.device_put(on_host).block_until_ready())
    held, added = jax.device_put(on_host), jax.jit(lambda x: x + 1)
    copied = timed(lambda: added(held).block_until_ready())
    found["to_device"] = on_host.nbytes / to_device
    found["memory"] = 2 * on_host.nbytes / copied  # read and written
    return found


def hamming_search(sizes: Sizes, rows: int, bits: int) -> list[Rate]:
    """The top 100 of random codes, as `speed search`; the bound is that of bare distances."""
    generator = np.random.default_rng(0)
    cb = generator.integers(0, 256, (rows, bits // 8), np.uint8)
    cq = generator.integers(0, 256, (sizes.queries, bits // 8), np.uint8)
    k, here = min(speed.K, rows), parallel.local_devices()
    seconds = timed(lambda: hamming.search(cq, cb, k, "accelerator"))
    peak = peak_bytes()
    few = cq[: max(1, min(len(cq), sizes.peer_pairs // rows))]
    index = faiss.IndexBinaryFlat(bits)
    index.add(cb)
    peer = timed(lambda: index.search(few, k))
    near, block = jax.device_put((cq[:256], cb[: 1 << 18]))
    bare = jax.jit(lambda q, b: hamming.distances(q, b).min(axis=1))
    bare_secs = timed(lambda: bare(near, block).block_until_ready())
    return [
        Rate(
            f"Hamming top {k}, {_count(len(cq))} queries x {_count(rows)} codes of {bits} bits",
            "pairs/s",
            len(cq) * rows / seconds,
            f"faiss IndexBinaryFlat, {_count(len(few))} queries",
            len(few) * rows / peer,
            "bare distances",
            len(near) * len(block) * len(here) / bare_secs,
            peak,
        )
    ]


def ground_truth(sizes: Sizes, dims: int, limits: dict[str, float]) -> list[Rate]:
    """The certified top 1,000 and top 2 %, as `speed ground_truth`."""
    xq, xb = speed.manifold(sizes.rows, dims, sizes.queries)
    wanted = metrics.relevance_sizes(len(xb))
    seconds = timed(lambda: neighbours.nearest_sets(xq, xb, wanted, "accelerator"))
    peak = peak_bytes()
    few = xq[: max(1, min(len(xq), sizes.peer_pairs // len(xb) // 10))]
    peer = timed(lambda: neighbours.nearest_sets(few, xb, wanted, "cpu"))
    what = f"ground truth, {_count(len(xq))} queries x {_count(len(xb))} x {dims}"
    peer_name = f"CPU engine, {_count(len(few))} queries"
    pairs, few_pairs = len(xq) * len(xb), len(few) * len(xb)
    return [_of_pairs(what, pairs / seconds, peer_name, few_pairs / peer, dims, limits, peak)]


def graph(sizes: Sizes, dims: int, limits: dict[str, float]) -> list[Rate]:
    """The neighbour graph of all rows, beside faiss's search of some."""
    xb = speed.manifold(sizes.rows, dims, 0)[1]
    seconds = timed(lambda: euclidean.neighbour_graph(xb, GRAPH_K, "accelerator"))
    peak = peak_bytes()
    few = xb[: max(1, min(len(xb), sizes.peer_pairs // len(xb) // 10))]
    peer = timed(lambda: faiss.knn(few, xb, GRAPH_K + 1))
    what = f"neighbour graph, k={GRAPH_K}, of {_count(len(xb))} x {dims}"
    peer_name = f"faiss knn, {_count(len(few))} queries"
    pairs, few_pairs = len(xb) ** 2, len(few) * len(xb)
    return [_of_pairs(what, pairs / seconds, peer_name, few_pairs / peer, dims, limits, peak)]


def _of_pairs(what, rate, peer, peer_rate, dims: int, limits: dict, peak: int | None) -> Rate:
    """A rate of pairs of float32 rows; the bound is their products at full precision."""
    bound = limits["highest"] * len(parallel.local_devices()) / (2 * dims)
    bound_name = "matrix products"
    return Rate(what, "pairs/s", rate, peer, peer_rate, bound_name, bound, peak)


def encoding(sizes: Sizes, dims: int, limits: dict[str, float], encoder: Path) -> Iterator[Rate]:
    """Codes of base rows, plain and refined, by the encoder that `training` left."""
    h, xb = hasher.read(encoder, "remove it"), speed.manifold(sizes.encoded_rows[dims], dims, 0)[1]
    devices = len(parallel.local_devices())
    few = xb[: max(1, len(xb) // 10)]
    seconds = timed(lambda: h.encode(xb, refine=0))
    peak = peak_bytes()
    peer = timed(lambda: speed.bare_encoder(h, few))
    net = h.params["gen"]["hash"]
    kernels = [layer["kernel"] for name, layer in net.items() if name != "query_out"]
    flops = 2 * sum(kernel.size for kernel in (h.params["standardiser"]["projection"], *kernels))
    bound, name = min(
        (limits["highest"] * devices / flops, "matrix products"),
        (limits["to_device"] / (4 * dims), "copies to the device"),
    )
    what = f"{_count(len(xb))} rows of {dims} columns, {BITS} bits"
    yield Rate(
        f"encoding, {what}",
        "rows/s",
        len(xb) / seconds,
        "numpy float32 products",
        len(few) / peer,
        name,
        bound,
        peak,
    )
    seconds = timed(lambda: h.encode(few, refine=MU))
    flips = np.bitwise_count(h.encode(few, refine=MU) ^ h.encode(few, refine=0)).sum(1)
    rounds = 1 + np.ceil(flips / max(refine.TOGETHER)).mean()  # at least; the last flips nothing
    m, p = h.model, h.features_kept
    decoder = 2 * m.atoms * (m.bits * (1 + 2 * (m.ista_steps - 1)) + p)
    # a round decodes a code, its gradient and four candidates
    bound = limits["highest"] * devices / (6 * decoder * rounds)
    yield Rate(
        f"refinement, {_count(len(few))} rows of {dims} columns, {BITS} bits",
        "rows/s",
        len(few) / seconds,
        "",
        None,
        f"matrix products of {rounds:.1f} rounds",
        bound,
        peak_bytes(),
    )


def _count(n: int) -> str:
    """1M, 100M, 10,000."""
    return f"{n // 10**6}M" if n and n % 10**6 == 0 else f"{n:,}"
