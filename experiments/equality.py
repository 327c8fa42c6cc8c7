"""Whether an accelerator gives what a CPU gives: the same work on both, compared.

    python -m experiments.equality DIRECTORY --small

is the CPU's side: a process of its own on one device under `JAX_PLATFORMS=cpu`, with faiss and
numpy as search engine, that leaves its results in DIRECTORY. `checks` starts it, does the same work
on the devices that JAX finds, with the other engine, and compares. Where JAX finds a CPU only, the
engines of the search still differ, but training and encoding differ by the number of devices alone.

Shapes: Q queries, N base rows, d columns, K bits, W packed bytes, k neighbours.

Not responsible for rates (`rates`) nor for what is shown (`accelerator`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sigah_jax import fitting
from sigah_jax.command_line import Parser, command
from sigah_jax.data.synthetic import make_manifold
from sigah_jax.devices import parallel
from sigah_jax.encoder import hasher
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.retrieval import euclidean, hamming, histograms, neighbours
from sigah_jax.run import logs


class Sizes(NamedTuple):
    """Sizes of the inputs, and of the encoder that is trained on them."""

    rows: int
    queries: int
    dims: int
    bits: int
    widths: tuple[int, ...]  # hidden layers of the hash network
    anchors: int


FULL = Sizes(20_000, 500, 96, 64, (1024,), 256)
SMALL = Sizes(2_000, 40, 24, 32, (64,), 64)
K = 100  # neighbours
SETS = (10, 1000)  # of the ground truth
STEPS = 60  # of training
MU = 0.01  # of refinement

# What rounding may do. Float32 sums of another order differ by about 1e-6 of a projection, which is
# about 1; a bit may differ where |u| is below this.
BARE_BIT = 1e-5
# A bit that differs in training moves what follows. On one and on eight simulated devices, whose
# sums have another order too, losses differed by 6e-4; of the bits of codes none did on one kind of
# CPU, and 3.8 % on another (small sizes). Codes that have nothing in common differ in half of them.
LOSS, BITS = 0.01, 0.1
# A flip that rounding decides the other way leads a row to another code, hardly better or worse.
REFINED_ROWS, REFINED_ERROR = 0.01, 1e-3
FEATURE = 1e-4  # of a synthetic feature, whose length is about 1


class Check(NamedTuple):
    """One comparison: how many values, how many differ, and whether rounding explains it."""

    name: str
    compared: int
    different: int
    allowed: str  # what may differ
    passed: bool


def inputs(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Queries `[Q, d]` and base rows `[N, d]` f32; every fiftieth row is there twice, for ties."""
    generator, draw = np.random.default_rng(0), make_manifold(sizes.dims)
    xb = draw(generator, sizes.rows)
    xb[1::50] = xb[::50]
    return draw(generator, sizes.queries), xb


def config_of(sizes: Sizes) -> dict:
    """The changes that make a short training, in full float32: only the order of sums differs.

    A steep loss would enlarge the differences, so neighbours that stand apart get no weight of
    their own here.
    """
    return {
        "apart.below": 0.0,
        "train.steps": STEPS,
        "eval.every_steps": STEPS,
        "train.matmul_precision": "highest",
        "train.anchors": sizes.anchors,
        "model.hash_widths": sizes.widths,
        "refit.share": 0.0,
        "refine.iterations": 0,
    }


def trained(sizes: Sizes, workdir: Path) -> tuple[hasher.Hasher, np.ndarray]:
    """An encoder trained on the base rows, and its losses, a mean of every twenty steps."""
    h = fitting.fit(inputs(sizes)[1], sizes.bits, workdir, config_of(sizes))
    rows = logs.read_rows(workdir / "metrics.jsonl")
    return h, np.array([row["train/loss_gen"] for row in rows])


def searched(sizes: Sizes, engine: str) -> dict[str, np.ndarray]:
    """What one engine finds; codes are the signs of centred columns, with ties everywhere."""
    xq, xb = inputs(sizes)
    cq, cb = (np.packbits(x > xb.mean(axis=0), axis=1) for x in (xq, xb))
    truth = neighbours.nearest_sets(xq, xb, SETS, engine)
    counts = histograms.distance_histograms(cq, cb, truth, SETS, sizes.dims, engine)
    near = hamming.search(cq, cb, K, engine)
    squared, ids = euclidean.knn(xq, xb, K, engine)
    return {
        "squared": squared,
        "ids": ids,
        "graph": euclidean.neighbour_graph(xb, K, engine),
        "truth": truth,
        "hamming": np.stack(near),
        "total": counts.total,
        "relevant": counts.relevant,
    }


def encoded(h: hasher.Hasher, sizes: Sizes) -> dict[str, np.ndarray]:
    """What an encoder gives on the devices of this process."""
    xq, xb = inputs(sizes)
    packed = h.encode(xb, refine=0)
    return {
        "codes": packed,
        "query_codes": h.encode_queries(xq),
        "query_projections": h.project_queries(xq),
        "projections": h.both_projections(xb) - 2 * h.project_queries(xb),
        "features": h.features(xb),
        "synthetic": h.decode(packed),
        "refined": h.encode(xb, refine=MU),
    }


def leave_reference(sizes: Sizes, directory: Path) -> None:
    """The CPU's side, into `directory`: `encoder.npz` and `reference.npz`."""
    h, losses = trained(sizes, directory / "cpu")
    h.save(directory / "encoder.npz")
    found = searched(sizes, "cpu") | encoded(h, sizes) | {"losses": losses}
    with whole.writing(directory / "reference.npz") as f:
        np.savez(f, **found)


def checks(small: bool) -> list[Check]:
    """All comparisons; RuntimeError if the CPU's process fails."""
    sizes = SMALL if small else FULL
    with tempfile.TemporaryDirectory(prefix="sigah_jax-equality-") as name:
        directory = Path(name)
        arguments = [sys.executable, "-m", "experiments.equality", name]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
        process = subprocess.run(
            arguments + ["--small"] * small, env=environment, stdout=subprocess.DEVNULL, check=False
        )
        if process.returncode:
            raise RuntimeError(f"the CPU's side ended with exit code {process.returncode}")
        with np.load(directory / "reference.npz") as held:
            want = dict(held)
        h = hasher.read(directory / "encoder.npz", "run again")
        found = searched(sizes, "accelerator") | encoded(h, sizes)
        here, losses = trained(sizes, directory / "here")
        found |= {"losses": losses, "trained_codes": here.encode(inputs(sizes)[1])}
    return compare(sizes, h, want, found)


def compare(
    sizes: Sizes, h: hasher.Hasher, want: dict[str, np.ndarray], found: dict[str, np.ndarray]
) -> list[Check]:
    """Compares what was found with what is wanted; `h` is the encoder of both."""
    xq, xb = inputs(sizes)
    return [
        _of_distances(xq, xb, want, found),
        _of_neighbours("nearest neighbours", xq, xb, want["ids"], found["ids"]),
        _of_neighbours("neighbour graph", xb, xb, want["graph"], found["graph"]),
        *(
            _of_integers(title, want[name], found[name])
            for title, name in (
                ("ground truth", "truth"),
                ("Hamming search, distances and ids", "hamming"),
                ("histograms of distances", "total"),
                ("histograms of relevant distances", "relevant"),
            )
        ),
        _of_codes("codes of base rows", want["projections"], want["codes"], found["codes"]),
        _of_codes(
            "codes of queries", want["query_projections"], want["query_codes"], found["query_codes"]
        ),
        _of_synthetic(want, found),
        _of_refinement(h, want, found),
        *_of_training(sizes, want, found),
    ]


def _of_integers(name: str, want: np.ndarray, found: np.ndarray) -> Check:
    different = int(np.count_nonzero(want != found))
    return Check(name, want.size, different, "nothing", different == 0)


def _bounds(xq: np.ndarray, xb: np.ndarray, squared: np.ndarray) -> np.ndarray:
    """How far float32 squared distances may be from true ones: `[Q, k] -> [Q, 1]`."""
    centre = euclidean.centre_of(xb)
    farthest = squared.max(axis=1)
    pairs = zip(xq, farthest, strict=True)
    return np.array([[neighbours.rounding_bound(x, centre, float(v))] for x, v in pairs])


def _of_distances(xq, xb, want: dict, found: dict) -> Check:
    apart = np.abs(want["squared"].astype(np.float64) - found["squared"])
    passed = bool((apart <= 2 * _bounds(xq, xb, want["squared"])).all())
    different = int(np.count_nonzero(apart))
    return Check("squared distances", apart.size, different, "rounding of float32", passed)


def _of_neighbours(name: str, xq, xb, want: np.ndarray, found: np.ndarray) -> Check:
    """Ids may differ where float64 distances at one place are as near as rounding can confuse."""
    rows = np.flatnonzero((want != found).any(axis=1))
    passed = all(len(np.unique(row)) == len(row) for row in found[rows])
    if len(rows) and passed:
        squared = neighbours.exact_distances(xq[rows], xb, want[rows])
        apart = np.abs(squared - neighbours.exact_distances(xq[rows], xb, found[rows]))
        passed = bool((apart <= 2 * _bounds(xq[rows], xb, squared)).all())
    different = int(np.count_nonzero(want != found))
    return Check(name, want.size, different, "ties within rounding", passed)


def _of_codes(name: str, u: np.ndarray, want: np.ndarray, found: np.ndarray) -> Check:
    """Bits may differ where the projection is about 0."""
    differs = np.unpackbits(want ^ found, axis=1)[:, : u.shape[1]].astype(bool)
    passed = bool((np.abs(u[differs]) < BARE_BIT).all())
    return Check(name, differs.size, int(differs.sum()), f"bits where |u| < {BARE_BIT:g}", passed)


def _of_synthetic(want: dict, found: dict) -> Check:
    """Compares synthetic features of the rows whose codes are equal."""
    same = (want["codes"] == found["codes"]).all(axis=1)
    apart = np.abs(want["synthetic"][same] - found["synthetic"][same]) > FEATURE
    different = int(apart.sum())
    return Check("synthetic features", apart.size, different, f"by {FEATURE:g}", different == 0)


def _of_refinement(h: hasher.Hasher, want: dict, found: dict) -> Check:
    """Few rows differ, and those of another code are as near to their synthetic features."""
    differs = (want["refined"] != found["refined"]).any(axis=1)
    errors = [
        float(np.mean(np.sum((want["features"] - h.decode(codes)) ** 2, axis=1)))
        for codes in (want["refined"], found["refined"])
    ]
    as_near = abs(errors[1] - errors[0]) <= REFINED_ERROR * errors[0]
    passed = bool(differs.mean() <= REFINED_ROWS and as_near)
    allowed = f"{REFINED_ROWS:.0%} of rows, ‖z - ẑ‖² by {REFINED_ERROR:g}"
    return Check("refined codes, rows", differs.size, int(differs.sum()), allowed, passed)


def _of_training(sizes: Sizes, want: dict, found: dict) -> list[Check]:
    apart = np.abs(found["losses"] / want["losses"] - 1)
    differs = np.unpackbits(want["codes"] ^ found["trained_codes"], axis=1)[:, : sizes.bits]
    over = int(np.count_nonzero(~(apart <= LOSS)))  # also what is not finite
    return [
        Check(f"losses of {STEPS} steps", apart.size, over, f"by {LOSS:.0%}", over == 0),
        Check(
            f"codes after {STEPS} steps, bits",
            differs.size,
            int(differs.sum()),
            f"{BITS:.0%} of bits",
            bool(differs.mean() <= BITS),
        ),
    ]


@command("nothing is written")
def main(argv: list[str] | None = None) -> None:
    """The CPU's side. Exit code: 0, or 2 for bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(argv)
    if parallel.local_devices()[0].platform != "cpu":
        raise BadInput("JAX_PLATFORMS: this is the CPU's side; set it to cpu")
    leave_reference(SMALL if args.small else FULL, args.directory)


if __name__ == "__main__":
    sys.exit(main())
