"""Speed of the slow parts as a ratio to a named peer, both timed in turn in one process.

    python -m experiments.speed pipeline --rows=1000000 --dims=96 --bits=128 --queries=1000
    python -m experiments.speed search --rows=1000000 --bits=64 --queries=1000
    python -m experiments.speed search_file --rows=100000000 --bits=64 --queries=100
    python -m experiments.speed encode --rows=500000 --dims=960 --bits=64
    python -m experiments.speed refine --rows=60000 --dims=384 --bits=64
    python -m experiments.speed encode_file --rows=1000000 --dims=960 --bits=64
    python -m experiments.speed rerank --rows=1000000 --dims=96 --queries=1000
    python -m experiments.speed synthetic --rows=60000 --dims=960 --bits=64 --queries=1000
    python -m experiments.speed itq --rows=69000 --dims=784 --bits=64
    python -m experiments.speed ground_truth --rows=1000000 --dims=960 --queries=1000
    python -m experiments.speed graph --rows=100000 --dims=96

Timings on a shared machine are noisy: the sides alternate, and the table shows the best and the
median of each and the ratio of its median to that of the peer, the first line.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from sigah_jax import fitting
from sigah_jax.baselines import itq, quantisers
from sigah_jax.command_line import Parser, at_least, command
from sigah_jax.config import vectors_config
from sigah_jax.data.synthetic import make_manifold
from sigah_jax.devices import parallel
from sigah_jax.encode import encode_file
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.errors import BadInput
from sigah_jax.process.blas import faiss
from sigah_jax.retrieval import (
    approximate,
    asymmetric,
    euclidean,
    hamming,
    metrics,
    neighbours,
    rerank,
)
from sigah_jax.training import prepare

ITERATIONS = 50  # of ITQ
MATRIX_BLOCK_BYTES = 1 << 24  # of one product, as in `retrieval.neighbours`
K = 100  # neighbours searched
CANDIDATES = 1000  # re-ranked a query
FIT_ROWS, FIT_STEPS = 50_000, 400  # of the encoders
RECALL = 0.95  # recall@10 of `pipeline`
MUS = (0.03, 0.003)  # of `refine`

Sides = dict[str, Callable[[], object]]  # the peer first, and what is compared with it


def manifold(rows: int, dims: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries `[Q, d]` and base `[N, d]`, f32."""
    draw = make_manifold(dims)
    xb = np.empty((rows, dims), np.float32)
    generator = np.random.default_rng(0)
    for start in range(0, rows, 16384):
        xb[start : start + 16384] = draw(generator, min(16384, rows - start))
    return draw(generator, queries), xb


def trained(xb: np.ndarray, args) -> Hasher:
    """An encoder of the default shape, plain; a short training changes nothing about its speed."""
    changes = {"train.steps": FIT_STEPS, "refine.iterations": 0}
    return fitting.fit(xb[:FIT_ROWS], args.bits, changes=changes)


def bare_product(xq: np.ndarray, xb: np.ndarray) -> None:
    """All inner products, block by block, thrown away: what an exact search cannot go below."""
    rows = max(1, MATRIX_BLOCK_BYTES // (4 * len(xq)))
    for start in range(0, len(xb), rows):
        xq @ xb[start : start + rows].T


def bare_encoder(h: Hasher, xb: np.ndarray) -> None:
    """The float32 matrix products of an encoder, block by block, thrown away."""
    projection = np.asarray(h.params["standardiser"]["projection"])
    net = h.params["gen"]["hash"]
    hidden, out, linear = (np.asarray(net[name]["kernel"]) for name in ("hidden0", "out", "linear"))
    for start in range(0, len(xb), h.call_rows):
        z = xb[start : start + h.call_rows] @ projection
        (z @ hidden) @ out
        z @ linear


def bare_decoder(h: Hasher, rows: int) -> None:
    """The float32 matrix products of a decoder of `rows` codes, block by block, thrown away."""
    decoder = h.params["gen"]["decoder"]
    sensing, dictionary = np.asarray(decoder["sensing"]), np.asarray(decoder["dictionary"])
    b = np.zeros((h.call_rows, h.bits), np.float32)
    for _ in range(0, rows, len(b)):
        s = b @ sensing
        for _ in range(h.nets.decoder.steps - 1):
            s = (s @ sensing.T) @ sensing
        s @ dictionary


def pipeline(args) -> Sides:
    """From query vectors to 10 neighbours: exact float32 search, and codes re-ranked by vectors.

    As many codes are re-ranked as give recall@10 of `RECALL`, chosen on other queries.
    """
    xq, xb = manifold(args.rows, args.dims, args.queries)
    engine, half = parallel.engine("auto"), len(xq) // 2
    h = trained(xb, args)
    cb = h.encode(xb)
    truth = neighbours.nearest_sets(xq[:half], xb, (10,), engine)

    def found(x: np.ndarray, count: int) -> np.ndarray:
        candidates = hamming.search(h.encode_queries(x), cb, count, engine)[1]
        return rerank.rerank(x, xb, candidates, 10)[1]

    count = 10
    while (got := neighbours.recall(xq[:half], xb, found(xq[:half], count), truth)) < RECALL:
        count *= 2
    print(f"{count} codes are re-ranked: recall@10 {got:.3f}")
    print(f"vectors {xb.nbytes / 1e6:.0f} MB, codes {cb.nbytes / 1e6:.0f} MB")
    x = xq[half:]
    index = faiss.IndexFlatL2(args.dims)
    index.add(xb)
    return {
        f"faiss IndexFlatL2, {len(x)} queries": lambda: index.search(x, 10),
        "numpy float32 matrix product": lambda: bare_product(x, xb),
        "encode, search codes, re-rank": lambda: found(x, count),
    }


def search(args) -> Sides:
    """Exact search of random codes against faiss's, which holds its own copy of them."""
    return _searches(*_random_codes(args))


def search_file(args) -> Sides:
    """The same search of codes in a memory-mapped file."""
    cb, cq = _random_codes(args)
    path = args.directory / "codes.npy"
    np.save(path, cb)
    return _searches(np.load(path, mmap_mode="r"), cq)


def _random_codes(args) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the base and of queries, `[rows, bits / 8] u8` and `[queries, bits / 8]`."""
    generator = np.random.default_rng(0)
    return tuple(
        generator.integers(0, 256, (count, args.bits // 8), np.uint8)
        for count in (args.rows, args.queries)
    )


def _searches(cb: np.ndarray, cq: np.ndarray) -> Sides:
    index = faiss.IndexBinaryFlat(8 * cb.shape[1])
    index.add(cb)
    return {
        f"faiss IndexBinaryFlat, k={K}": lambda: index.search(cq, K),
        "Hamming search": lambda: hamming.search(cq, cb, K, parallel.engine("auto")),
    }


def encode(args) -> Sides:
    """Encoding against the bare matrix products of the encoder."""
    xb = manifold(args.rows, args.dims, 0)[1]
    h = trained(xb, args)
    return {
        "numpy float32 matrix products": lambda: bare_encoder(h, xb),
        "encode": lambda: h.encode(xb),
    }


def encode_from_file(args) -> Sides:
    """The command's work, file to file, against reading the file for the bare products."""
    xb = manifold(args.rows, args.dims, 0)[1]
    h, path = trained(xb, args), args.directory / "x.npy"
    np.save(path, xb)
    del xb
    codes, flags = args.directory / "codes.npy", {"overwrite": True, "skip_bad": False}
    return {
        "read and matrix products": lambda: bare_encoder(h, np.load(path, mmap_mode="r")),
        "encode a file": lambda: encode_file(h, str(path), codes, **flags),
    }


def by_originals(args) -> Sides:
    """Re-ranking of random candidates against their bare distances, unsorted rows, no ranking."""
    xq, xb = manifold(args.rows, args.dims, args.queries)
    generator = np.random.default_rng(3)
    ids = np.stack([generator.choice(args.rows, CANDIDATES, False) for _ in range(args.queries)])

    def peer() -> None:
        out = np.empty(ids.shape, np.float32)
        pointers = (faiss.swig_ptr(a) for a in (out, xq, xb, ids))
        faiss.fvec_L2sqr_by_idx(*pointers, args.dims, *ids.shape)

    return {
        "faiss distances, no ranking": peer,
        "re-ranking by vectors": lambda: rerank.rerank(xq, xb, ids, K),
    }


def refine(args) -> Sides:
    """Codes, plain and refined, against those of a residual quantiser of equal bytes."""
    _, xb = manifold(args.rows, args.dims, 0)
    h, quantiser = trained(xb, args), quantisers.fit("rq", 0, xb[:FIT_ROWS], args.bits)

    def peer() -> None:
        quantiser.index.reset()
        quantisers.add(quantiser, xb)

    sides = {"faiss residual quantiser": peer, "plain": lambda: h.encode(xb)}
    return sides | {f"refined, μ={mu}": functools.partial(h.encode, xb, refine=mu) for mu in MUS}


def by_synthetic(args) -> Sides:
    """Re-ranking by synthetic features against the bare matrix products of its decoder."""
    xq, xb = manifold(args.rows, args.dims, args.queries)
    h = trained(xb, args)
    cb, cq = h.encode(xb), h.encode_queries(xq)
    ids = hamming.search(cq, cb, CANDIDATES, parallel.engine("auto"))[1]
    count = len(asymmetric.distinct(cb[np.unique(ids)])[0])
    print(f"{count} distinct codes are decoded")
    return {
        "matrix products of the decoder": lambda: bare_decoder(h, count),
        "by synthetic feature": lambda: asymmetric.by_feature(h.features(xq), cb, ids, K, h.decode),
    }


def itq_fit(args) -> Sides:
    """ITQ's training against faiss's, 50 iterations on all rows."""
    xt = make_manifold(args.dims)(np.random.default_rng(0), args.rows)

    def peer() -> None:
        transform = faiss.ITQTransform(args.dims, args.bits, True)
        transform.max_train_per_dim = args.rows
        transform.itq.max_iter = ITERATIONS
        transform.train(xt)

    ours = functools.partial(itq.fit, jax.random.key(0), xt, args.bits, ITERATIONS)
    return {"faiss ITQTransform": peer, "itq": ours}


def ground_truth(args) -> Sides:
    """Certified top 1,000 and top 2 % against the bare float32 matrix product."""
    xq, xb = manifold(args.rows, args.dims, args.queries)
    sizes, engine = metrics.relevance_sizes(args.rows), parallel.engine("auto")
    return {
        "numpy float32 matrix product": lambda: bare_product(xq, xb),
        "ground truth": lambda: neighbours.nearest_sets(xq, xb, sizes, engine),
    }


def graph(args) -> Sides:
    """The approximate neighbour graph of training rows against the exact one."""
    xb = manifold(args.rows, args.dims, 0)[1]
    engine, config = parallel.engine("auto"), vectors_config().train
    k, probes = config.graph_neighbours, config.graph_probes
    of = k, probes, prepare.LEAST_RECALL, engine
    near = functools.partial(approximate.neighbour_graph, xb, *of)
    print(f"recall {approximate.recall(xb, near(), engine):.4f}")
    exact = functools.partial(euclidean.neighbour_graph, xb, k, engine)
    return {"exact graph": exact, "approximate graph": near}


PARTS = {
    "pipeline": pipeline,
    "search": search,
    "search_file": search_file,
    "encode": encode,
    "refine": refine,
    "encode_file": encode_from_file,
    "rerank": by_originals,
    "synthetic": by_synthetic,
    "itq": itq_fit,
    "ground_truth": ground_truth,
    "graph": graph,
}


@command("nothing is kept")
def main() -> None:
    """Times one part and prints a line for each side. Exit code: 0, 2 bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rows", type=at_least(CANDIDATES), default=1_000_000)
    parser.add_argument("--dims", type=at_least(1), default=960)
    parser.add_argument("--bits", type=at_least(8), default=64, help="for searches a multiple of 8")
    parser.add_argument("--queries", type=at_least(1), default=1_000)
    parser.add_argument("--repeats", type=at_least(1), default=3)
    args = parser.parse_args()
    if args.part == "itq" and args.bits > args.dims:
        raise BadInput(
            f"--bits={args.bits}: ITQ has a bit of each column, expected --dims or fewer"
        )
    with tempfile.TemporaryDirectory(prefix="sigah_jax-speed-") as directory:
        args.directory = Path(directory)
        sides = PARTS[args.part](args)
        seconds = {name: [] for name in sides}
        for number in range(args.repeats + 1):
            for name, function in sides.items():
                start = time.perf_counter()
                function()
                if number:  # the first call compiles
                    seconds[name].append(time.perf_counter() - start)
    peer = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        median = statistics.median(values)
        print(
            f"{name:34} best {min(values):7.2f} s  median {median:7.2f} s  "
            f"ratio {median / peer:5.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
