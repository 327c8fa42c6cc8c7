"""What synthetic features are worth: how near they are, how alike, and how well they rank.

    python -m experiments.decoder runs/…/sigah/… runs/…/sigah_no_adversary/…

A line for each run directory, all of one data set, on its test queries, in the space of
`Hasher.features`: the reconstruction error; the energy distance between real and synthetic
features of other vectors, beside that of real features among themselves, which is the noise of
the sample; and the ranking of the whole base by ‖β z - ẑ‖.

`--plot=FILE.png` draws for each run what its discriminator thinks of the same rows: the histograms
of its errors e(z) and e(ẑ), by both nets as the first training left them, without the largest 1 %.

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
from matplotlib.axes import Axes
from scipy.spatial.distance import cdist, pdist
from scipy.stats import mannwhitneyu

from sigah_jax.command_line import Parser, command
from sigah_jax.data.datasets import Dataset, load_dataset
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.model import networks
from sigah_jax.report import drawing
from sigah_jax.retrieval import real_queries
from sigah_jax.run import checkpoints, loading, rundir
from sigah_jax.training import evaluate

SPLITS = 20  # random halves of the queries
QUERIES = 500  # ranked; the whole base is sorted for each
RANKED = ("map@1000", "precision@100", "recall@100")
BINS = 30
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
    squared, asked = (base**2).sum(1), h.query_features(data.xq)
    values = real_queries.score(lambda part: squared - 2 * asked[part] @ base.T, truth, len(base))
    ranked = [f"{values[name]:.3f}" for name in RANKED]
    return [f"{workdir}, {h.bits} bits", f"{error:.3f}", *alike(z, synthetic), *ranked]


def errors(workdir: Path, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """e(z) and e(ẑ) of the test queries as base rows, `[nq] f32` each, after the first training.

    BadInput if no discriminator was trained, or queries are not what base rows are.
    """
    config = rundir.read_config(workdir)[0]
    if not config.loss.adversary:
        raise BadInput(
            f"{workdir}: trained without an adversary; leave it out, or leave out --plot"
        )
    if data.metric.added:
        raise BadInput(f"{workdir}: --plot needs queries that could be base rows, of l2 or cosine")
    h = loading.of_checkpoint(workdir, "latest").euclidean
    step = checkpoints.number_of(workdir, "latest")
    dis = checkpoints.read(workdir, step, ("dis",))["dis"]
    z = h.features(data.xq)
    net = networks.make_networks(config.model, z.shape[1]).dis
    return tuple(np.asarray(networks.error(net, dis, x)) for x in (z, h.decode(h.encode(data.xq))))


def plot(found: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """A panel for each run with both histograms, and the area under the curve of e.

    It is the share of pairs in which the synthetic feature has the larger error: 1 if the
    discriminator tells all of them apart, .5 if it cannot, near 0 if it takes synthetic features
    for the more real.
    """

    def draw(ax: Axes, name: str) -> None:
        real, synthetic = found[name]
        edges = np.linspace(0, np.quantile(np.concatenate([real, synthetic]), 0.99), BINS + 1)
        for number, (label, e) in enumerate(
            {"e(z), real": real, "e(ẑ), synthetic": synthetic}.items()
        ):
            counts, _ = np.histogram(e, edges)
            style = {"color": drawing.COLOURS[number], "linestyle": drawing.DASHES[number]}
            ax.stairs(counts / len(e), edges, label=label, linewidth=1.8, **style)
        area = mannwhitneyu(synthetic, real).statistic / (len(real) * len(synthetic))
        ax.set(xlabel="error of the discriminator", ylabel="share of rows", title=name)
        ax.legend(title=f"area under the curve {area:.2f}")

    drawing.panels(list(found), draw, path)


def rows(args, data: Dataset) -> Iterator[list[str]]:
    """The rows of the table, each as soon as it is known."""
    engine = parallel.engine("auto")
    truth = evaluate.ground_truth(args.cache, data, "xq", "xb", engine)[:QUERIES]
    yield ["run", *COLUMNS]
    yield ["---", *["---:"] * len(COLUMNS)]
    for workdir in args.runs:
        yield run_row(workdir, data, truth)


def load_common(workdirs: list[Path]) -> Dataset:
    """The data of the runs; BadInput if they are of different data."""
    configs = [rundir.read_config(workdir)[0] for workdir in workdirs]
    for workdir, config in zip(workdirs, configs, strict=True):
        if config.data.to_dict() != configs[0].data.to_dict():
            raise BadInput(f"{workdir}: of other data than {workdirs[0]}; give runs of one set")
    return load_dataset(configs[0])


@command("the same command starts again")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/data"), help="where ground truth is kept"
    )
    parser.add_argument("--plot", type=Path, help="where histograms of both errors are drawn")
    args = parser.parse_args(argv)
    if args.plot and args.plot.suffix != ".png":
        raise BadInput(f"--plot={args.plot}: the plot is a .png file; end its name so")
    data = load_common(args.runs)
    if args.plot:
        plot({str(workdir): errors(workdir, data) for workdir in args.runs}, args.plot)
    for row in rows(args, data):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
