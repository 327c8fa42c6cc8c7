"""What more training rows buy: recall of codes by how many rows they were trained on.

    python -m experiments.learning_curve --datasets=mnist,deep60k=deep60k.npy --rows=1000,10000

Base and queries are those of `experiments.paper_tables`, whose cells are the points of all rows.
The cells of fewer rows go to `<results>/learning_curve/<rows>/`, and those that are there are not
run again. Prints a table and draws `<results>/plots/learning_curve.png`.

Not responsible for how a cell is run: `experiments.cell`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import collections
import itertools
import statistics
import sys
from pathlib import Path

from matplotlib.axes import Axes

from experiments import cell
from sigah_jax.command_line import Parser, at_least, command, whole_numbers
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.formats.vectors import open_file
from sigah_jax.report import cells, comparison, drawing
from sigah_jax.report.tables import short_name

METHODS = ("sigah", "itq", "rq")  # whose cells are run; that of sigah also writes its stages
SHOWN = ("sigah", "sigah_stages", "itq", "rq")
METRIC = "recall@10"

Curve = dict[int, list[float]]  # the values of all seeds, by training rows, rising


def curves(results: Path, dataset: str, bits: int) -> dict[str, Curve]:
    """The curve of each method of `SHOWN` that was run on parts of the rows or on all.

    Raises:
        BadInput: a file of cells is damaged.
    """
    found = {method: collections.defaultdict(dict) for method in SHOWN}
    for path in (results, *(results / "learning_curve").glob("*")):
        for (method, length, seed), line in sorted(
            cells.read_lines(path / f"{dataset}.jsonl").items()
        ):
            if method in SHOWN and length == bits and "metrics" in line:
                found[method][line["rows"]["training"]][seed] = line["metrics"][METRIC]
    return {
        method: {n: list(of_seeds.values()) for n, of_seeds in sorted(curve.items())}
        for method, curve in found.items()
        if curve
    }


def table(found: dict[str, Curve], dataset: str, bits: int) -> str:
    """A row for each method, a column for each number of training rows, as Markdown."""
    counts = sorted(set().union(*found.values()))
    rows = {m: [curve.get(n, comparison.NOT_RUN) for n in counts] for m, curve in found.items()}
    columns = [f"{n:,} rows" for n in counts]
    return comparison.markdown(
        *comparison.grid(f"{dataset}, {bits} bits, {METRIC}", columns, rows, [METRIC] * len(counts))
    )


def plot(found: dict[str, dict[str, Curve]], path: Path) -> None:
    """A panel for each data set, a line for each method."""

    def draw(ax: Axes, dataset: str) -> None:
        for number, (method, curve) in enumerate(found[dataset].items()):
            points = [(n, statistics.mean(v), comparison.spread(v)) for n, v in curve.items()]
            style = drawing.look(number, method)
            ax.errorbar(*zip(*points, strict=True), label=short_name(method), **style)
        ax.set(xscale="log", xlabel="training rows", ylabel=METRIC, title=dataset)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        drawing.name_ends(ax)

    drawing.panels(list(found), draw, path)


def check_rows(data: str, n: int) -> None:
    """BadInput if a file `NAME=FILE` has fewer training rows, which would be all of them again."""
    config, (_, _, file) = cell.make_config(data, "sigah", 64, 0), data.partition("=")
    if file:
        rows = open_file(file).shape[0] - config.data.test_queries - config.data.val_queries
        if n > rows:
            raise BadInput(f"--rows: {data} has {rows} training rows; leave {n} out")


@command("the same command resumes")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input, 3 a loss that is not finite."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", default="mnist", help="experiment names, or NAME=FILE")
    parser.add_argument(
        "--rows",
        type=whole_numbers,
        default="1000,3000,10000,30000",
        help="numbers of training rows",
    )
    parser.add_argument("--bits", type=int, default=64, help="code length")
    parser.add_argument("--seeds", type=at_least(1), default=1, help="how many, from 0 on")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/learning_curve"))
    args = parser.parse_args(argv)
    sets, counts = args.datasets.split(","), args.rows
    missing = []
    for data, n, method, seed in itertools.product(sets, counts, METHODS, range(args.seeds)):
        root = args.results / "learning_curve" / str(n)
        line = cell.line_of(root, data, method, args.bits, seed)
        cell.check_file(line, data)
        if not line.exists():
            check_rows(data, n)
            missing.append((line, data, method, args.bits, seed, root, n))
    for line, *of, n in missing:
        print(line, flush=True)
        cell.run_cell(*of, args.runs / str(n), {"data.train_rows": n})
    names = [cell.data_name(data) for data in sets]
    found = {name: curves(args.results, name, args.bits) for name in names}
    print("\n\n".join(table(found[name], name, args.bits) for name in names))
    plot(found, args.results / "plots" / "learning_curve.png")


if __name__ == "__main__":
    sys.exit(main())
