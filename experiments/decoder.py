"""What synthetic features are worth: how near they are, how alike, and how well they rank.

    python -m experiments.decoder runs/…/sigah/… runs/…/sigah_no_adversary/…

A line for each run directory, all of one data set, on its test queries, in the space of
`Hasher.features`: the reconstruction error; the energy distance between real and synthetic
features of other vectors, beside that of real features among themselves, which is the noise of
the sample; and the ranking of the whole base by ‖z - ẑ‖.

Shapes: Q queries, N base rows, P features.

Not responsible for training.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist, pdist

from sigah_jax.data.datasets import Dataset, load_dataset
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput, Parser, command
from sigah_jax.retrieval import real_queries
from sigah_jax.run import loading, rundir
from sigah_jax.training import evaluate

SPLITS = 20  # random halves of the queries
QUERIES = 500  # ranked; the whole base is sorted for each
RANKED = ("map@1000", "precision@100", "recall@100")
COLUMNS = ("‖z - ẑ‖²", "energy distance", "of real ones", *RANKED)


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    """2 E‖x - y‖ - E‖x - x'‖ - E‖y - y'‖ over distinct pairs: `[n, P], [m, P] ->` f64.

    0 in expectation if and only if both have one distribution (Székely and Rizzo 2013).
    """
    return 2 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean()


def alike(z: np.ndarray, synthetic: np.ndarray) -> tuple[str, str]:
    """Energy distances over random halves, mean ± deviation: real to synthetic, real to real."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(SPLITS):
        a, b = np.array_split(generator.permutation(len(z)), 2)
        found.append((energy_distance(z[a], synthetic[b]), energy_distance(z[a], z[b])))
    mean, deviation = np.mean(found, 0), np.std(found, 0)
    return tuple(f"{m:.4f} ± {s:.4f}" for m, s in zip(mean, deviation, strict=True))


def run_row(workdir: Path, data: Dataset, truth: np.ndarray) -> list[str]:
    """The texts of one run."""
    h = loading.load(workdir).euclidean
    z, synthetic = h.features(data.xq), h.decode(h.encode(data.xq))
    error = ((z - synthetic) ** 2).sum(1).mean()
    base = h.decode(h.encode(data.xb))
    squared = (base**2).sum(1)
    values = real_queries.score(lambda part: squared - 2 * z[part] @ base.T, truth, len(base))
    ranked = [f"{values[name]:.3f}" for name in RANKED]
    return [f"{workdir}, {h.bits} bits", f"{error:.3f}", *alike(z, synthetic), *ranked]


def rows(args) -> Iterator[list[str]]:
    """The rows of the table, each as soon as it is known; BadInput if runs are of other data."""
    configs = [rundir.read_config(workdir)[0] for workdir in args.runs]
    for workdir, config in zip(args.runs, configs, strict=True):
        if config.data.to_dict() != configs[0].data.to_dict():
            raise BadInput(f"{workdir}: of other data than {args.runs[0]}; give runs of one set")
    data = load_dataset(configs[0])
    engine = parallel.engine("auto")
    truth = evaluate.ground_truth(args.cache, data, "xq", "xb", engine)[:QUERIES]
    yield ["run", *COLUMNS]
    yield ["---", *["---:"] * len(COLUMNS)]
    for workdir in args.runs:
        yield run_row(workdir, data, truth)


@command("the same command resumes")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/data"), help="where ground truth is kept"
    )
    for row in rows(parser.parse_args(argv)):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
