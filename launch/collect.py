"""Tables and plots of the runs below some directories, also while a sweep runs.

    python -m launch.collect runs/mnist

Prints `map`, and writes all metrics and the plots, with curves of the longest codes, to
`collected/` in the first directory.

A run is finished when its `results.json` is there; one that has a `config.json` alone is counted as
unfinished. Runs that differ in nothing but their seed are one row. A row names the fields in which
its runs differ from the experiment of their data set: those of `data` beside the data set, the
others beside SiGAH.

Not responsible for running (`launch.sweep`) nor for the cells of `experiments.paper_tables`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import collections
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from sigah_jax.baselines.methods import METHODS
from sigah_jax.command_line import Parser, command
from sigah_jax.config import as_json, fields_of
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.report import comparison, comparison_plots
from sigah_jax.report.cells import METRICS, Cell, cell_of, checking
from sigah_jax.report.tables import display_name
from sigah_jax.run.rundir import NOT_IDENTITY, with_fields_of_before

_REMEDY = "remove it, then the training's command evaluates again; or give other directories"
# what a row or column says anyway, the baselines that are rows, and where and how a run ran
NOT_NAMED = ("seed", "preset", "data.name", "data.base", "eval.baselines", *NOT_IDENTITY)


def find_runs(directories: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The results files below the directories, by path, and the directories of unfinished runs."""
    for directory in directories:
        if not directory.is_dir():
            raise BadInput(f"{directory}: no such directory; give one with runs below it")
    found = {p.parent.resolve(): p.parent for d in directories for p in d.rglob("config.json")}
    finished = [w for w in sorted(found.values()) if (w / "results.json").exists()]
    return [w / "results.json" for w in finished], sorted(set(found.values()) - set(finished))


def read_run(path: Path) -> tuple[str, list[Cell]]:
    """The set and a cell for each method of a results file; BadInput if that is damaged.

    Files of vectors are named in full, and fields of the data that differ follow the set.
    """
    with checking(path, _REMEDY):
        run = whole.read_json(path, _REMEDY)
        data = run["config"]["data"]
        base = data["base"] if data["name"] == "vectors" else data["name"]
        cells = []
        for method, metrics in run["metrics"].items():
            line = run | {"dataset": base, "method": method}
            if metrics:
                line["metrics"] = metrics
                if method in run["pr_curves"]:
                    line["pr_curve"] = run["pr_curves"][method]
            else:
                line["not_applicable"] = "it cannot have that many bits"
            cells.append(cell_of(line))
        if not cells:
            raise ValueError("no method")
        changes = changes_of(run["config"], cells[0].bits)
    on_data = [change[5:] for change in changes if change.startswith("data.")]
    own = [change for change in changes if not change.startswith("data.")]
    ours = [c.method for c in cells if c.method not in METHODS and own]
    names = {method: ", ".join([display_name(method), *own]) for method in ours}
    dataset = ", ".join([base, *on_data])
    cells = [c._replace(dataset=dataset, method=names.get(c.method, c.method)) for c in cells]
    return base, cells


def changes_of(config: dict, bits: int) -> list[str]:
    """The preset, if it is not the usual one, and the fields that differ from the experiment's."""
    preset, name = config["preset"], config["data"]["name"]
    try:
        experiment = importlib.import_module(f"experiments.{name}")
        usual = experiment.get_config(f"preset={preset},bits={bits}")
    except (ImportError, BadInput) as e:
        raise ValueError(f"preset {preset!r} of {name!r}") from e
    usual, fields = fields_of(as_json(usual)), fields_of(with_fields_of_before(config))
    names = sorted((fields.keys() | usual.keys()) - set(NOT_NAMED))
    changes = [f"{n}={fields.get(n)}" for n in names if fields.get(n) != usual.get(n)]
    return [f"preset={preset}"] * (preset != "best") + changes


def read_runs(paths: Sequence[Path]) -> list[Cell]:
    """The cells of all runs; of baselines, which the runs share, one for a seed.

    A file of vectors is named by its stem, or as it was given if two have the same stem.

    Raises:
        BadInput: a damaged file, two runs of the same row and seed, or of one set and other rows.
    """
    cells, owners, bases, rows = {}, {}, {}, {}
    for path in paths:
        base, found = read_run(path)
        dataset = found[0].dataset
        bases[dataset] = base
        _check_rows(rows, dataset, path.parent)
        for cell in found:
            key = cell[:4]
            owner = owners.setdefault(key, path)
            if cell.method not in METHODS and owner != path:
                both = f"{owner.parent} and {path.parent}"
                raise BadInput(f"{both}: differ in nothing, both are {key}; give one of them")
            cells[key] = cell
    stems = collections.Counter(Path(base).stem for base in set(bases.values()))
    short = {base: stem for base in bases.values() if stems[stem := Path(base).stem] == 1}
    names = {d: short.get(base, base) + d.removeprefix(base) for d, base in bases.items()}
    return [cell._replace(dataset=names[cell.dataset]) for cell in cells.values()]


def _check_rows(rows: dict[str, tuple[dict, Path]], dataset: str, workdir: Path) -> None:
    """BadInput unless runs of a set have equal hashes of their rows; `rows` keeps the first."""
    if not (path := workdir / "data.json").exists():
        return
    hashes = whole.read_json(path, "bring it back, or give other directories").get("hashes")
    first, theirs = rows.setdefault(dataset, (hashes, workdir))
    if first != hashes:
        raise BadInput(
            f"{theirs} and {workdir}: are of {dataset}, but of other rows, as after a change of "
            "its file; give one of them"
        )


def table(cells: Sequence[Cell], dataset: str, metric: str) -> str:
    """One metric of one data set: a row for each method, a column for each code length."""
    mine = [c for c in cells if c.dataset == dataset]
    bits = sorted({c.bits for c in mine})
    grid = comparison.over_length(mine, dataset, metric, methods_of(mine), bits, "bits")
    return comparison.markdown(*grid)


def methods_of(cells: Sequence[Cell]) -> list[str]:
    """SiGAH and its variants by name, then the baselines in their usual order."""
    found = {c.method for c in cells}
    return [*sorted(found - METHODS.keys(), key=str.lower), *(m for m in METHODS if m in found)]


@command("the same command starts again")
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "directories", nargs="+", type=Path, metavar="DIR", help="directory with runs below it"
    )
    args = parser.parse_args(argv)
    finished, unfinished = find_runs(args.directories)
    print(f"{len(finished)} runs finished, {len(unfinished)} unfinished")
    for workdir in unfinished:
        print(f"unfinished: {workdir}")
    if not finished:
        return
    cells, output = read_runs(finished), args.directories[0] / "collected"
    output.mkdir(exist_ok=True)
    datasets, bits = sorted({c.dataset for c in cells}), sorted({c.bits for c in cells})
    text = "\n\n".join(table(cells, d, m) for d in datasets for m in METRICS)
    whole.write_text(output / "tables.md", f"{text}\n")
    comparison_plots.draw(cells, methods_of(cells), bits, bits[-1], output / "plots")
    for dataset in datasets:
        print(f"\n{table(cells, dataset, 'map')}")
    print(f"\nall metrics: {output / 'tables.md'}  plots: {output / 'plots'}")


if __name__ == "__main__":
    sys.exit(main())
