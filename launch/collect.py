"""Tables and plots of the runs below some directories, also while a sweep runs.

    python -m launch.collect runs/mnist

A run is finished when its `results.json` is there; one that has a `config.json` alone is counted as
unfinished. Runs that differ in nothing but their seed are one row. Fields that differ otherwise, at
one preset and length, are named: those of `data` beside the data set, the others beside SiGAH.

Not responsible for running (`launch.sweep`) nor for the cells of `experiments.paper_tables`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sigah_jax.baselines.methods import METHODS
from sigah_jax.config import fields_of
from sigah_jax.errors import BadInput, command
from sigah_jax.files import whole
from sigah_jax.report import comparison, comparison_plots
from sigah_jax.report.cells import METRICS, Cell, make_cell, reading
from sigah_jax.report.tables import display_name
from sigah_jax.run.rundir import NOT_IDENTITY

_REMEDY = "remove it, then the training's command evaluates again; or give other directories"
# what says who and what is asked for, and where and how it ran
NOT_COMPARED = ("seed", "preset", "model.bits", "data.name", "eval.baselines", *NOT_IDENTITY)


class Run(NamedTuple):
    """A finished run."""

    workdir: Path
    dataset: str  # of a file of vectors, the name of the file
    bits: int
    preset: str
    fields: dict[str, Any]  # dotted name -> value, of those that are compared
    cells: list[Cell]  # one for each method


def find_runs(directories: Sequence[Path]) -> tuple[list[Run], list[Path]]:
    """The finished runs below the directories, by path, and the directories of the others.

    Raises:
        BadInput: a directory that does not exist, or a file that is not what a run writes.
    """
    for directory in directories:
        if not directory.is_dir():
            raise BadInput(f"{directory}: no such directory; give one with runs below it")
    found = {p.parent.resolve(): p.parent for d in directories for p in d.rglob("config.json")}
    finished = {w for w in found.values() if (w / "results.json").exists()}
    runs = [read_run(workdir / "results.json") for workdir in sorted(finished)]
    return runs, sorted(set(found.values()) - finished)


def read_run(path: Path) -> Run:
    """A run by its results file."""
    with reading(path, _REMEDY) as r:
        config, bits, seed, curves = r["config"], r["bits"], r["seed"], r["pr_curves"]
        data, preset = config["data"], config["preset"]
        dataset = Path(data["base"]).stem if data["name"] == "vectors" else data["name"]
        cells = [
            make_cell(dataset, method, bits, seed, metrics, curves.get(method, []), r["data"])
            for method, metrics in r["metrics"].items()
        ]
        if not cells or not isinstance(preset, str):
            raise ValueError("it lacks a part")
        fields = {k: v for k, v in fields_of(config).items() if k not in NOT_COMPARED}
        return Run(path.parent, dataset, bits, preset, fields, cells)


def cells_of(runs: Sequence[Run]) -> list[Cell]:
    """A cell for every method of every run; of baselines, which the runs share, one for a seed.

    Raises:
        BadInput: two runs that differ in nothing.
    """
    differing, cells, owners = differing_fields(runs), {}, {}
    for run in runs:
        own = {name: run.fields.get(name) for name in differing[run.dataset]}
        data = [f"{k.removeprefix('data.')}={v}" for k, v in own.items() if k.startswith("data.")]
        model = [f"preset={run.preset}"] * (run.preset != "best")
        model += [f"{k}={v}" for k, v in own.items() if not k.startswith("data.")]
        dataset = ", ".join([run.dataset, *data])
        for cell in run.cells:
            name = cell.method
            if name == "sigah" and model:
                name = ", ".join([display_name(name), *model])
            key = (dataset, name, cell.bits, cell.seed)
            if cell.method == "sigah" and owners.setdefault(key, run) is not run:
                both = f"{owners[key].workdir} and {run.workdir}"
                raise BadInput(f"{both}: differ in nothing, both are {key}; give one of them")
            cells[key] = cell._replace(dataset=dataset, method=name)
    return list(cells.values())


def differing_fields(runs: Sequence[Run]) -> dict[str, list[str]]:
    """By data set the fields with several values among runs of one preset and length."""
    groups = defaultdict(list)
    for run in runs:
        groups[run.dataset, run.preset, run.bits].append(run.fields)
    differing = defaultdict(set)
    for (dataset, *_), members in groups.items():
        names = set().union(*members)
        differing[dataset] |= {n for n in names if len({repr(m.get(n)) for m in members}) > 1}
    return {dataset: sorted(names) for dataset, names in differing.items()}


def table(cells: Sequence[Cell], dataset: str, metric: str) -> str:
    """One metric of one data set: a row a method, a column a code length."""
    mine = [c for c in cells if c.dataset == dataset]
    bits = sorted({c.bits for c in mine})
    rows = [
        (m, [comparison.values_of(mine, dataset, m, k, metric) for k in bits])
        for m in methods_of(mine)
    ]
    head = [f"{k} bits" for k in bits]
    return comparison.markdown(*comparison.grid(f"{dataset}, {metric}", head, rows))


def methods_of(cells: Sequence[Cell]) -> list[str]:
    """SiGAH and its variants by name, then the baselines in their usual order."""
    found = {c.method for c in cells}
    return [*sorted(found - METHODS.keys(), key=str.lower), *(m for m in METHODS if m in found)]


def write(cells: Sequence[Cell], directory: Path) -> None:
    """`tables.md`, of all metrics, and `plots/`; the curves are of the longest codes."""
    directory.mkdir(parents=True, exist_ok=True)
    datasets = sorted({c.dataset for c in cells})
    text = "\n\n".join(table(cells, d, m) for d in datasets for m in METRICS)
    whole.write_text(directory / "tables.md", f"{text}\n")
    bits = sorted({c.bits for c in cells})
    comparison_plots.draw(cells, methods_of(cells), bits, bits[-1], directory / "plots")


@command("the same command resumes")
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="runs are below")
    parser.add_argument("--metric", default="map", choices=METRICS, help="printed")
    parser.add_argument("--output", type=Path, help="default: DIR/collected, of the first")
    args = parser.parse_args(argv)
    output = args.output or args.directories[0] / "collected"
    runs, unfinished = find_runs(args.directories)
    print(f"{len(runs)} runs finished, {len(unfinished)} unfinished")
    for workdir in unfinished:
        print(f"unfinished: {workdir}")
    if not runs:
        return
    cells = cells_of(runs)
    write(cells, output)
    for dataset in sorted({c.dataset for c in cells}):
        print(f"\n{table(cells, dataset, args.metric)}")
    print(f"\nall metrics: {output / 'tables.md'}  plots: {output / 'plots'}")


if __name__ == "__main__":
    sys.exit(main())
