"""The paper's tables: declares the cells, runs those that are missing, writes tables and plots.

    python -m experiments.paper_tables --datasets=mnist --bits=64 --seeds=1
    python -m experiments.paper_tables --datasets=mnist,mine=my.npy --devices=0,1,2,3

A cell that is there is not run again, so the same command resumes after an interrupt, and two at
the same time share the cells: `launch.local`. `results/` then holds the cells, `tables.md`,
`tables.tex` and `plots/`, and README.md its short form.

Not responsible for how a cell is run: `experiments.cell`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import sys
from pathlib import Path

from experiments.cell import (
    VARIANTS,
    cell_path,
    data_name,
    make_config,
    of_other_file,
    of_other_settings,
)
from launch import local
from sigah_jax.baselines.methods import METHODS
from sigah_jax.data.datasets import open_file
from sigah_jax.errors import BadInput, command
from sigah_jax.files import whole
from sigah_jax.report import comparison, comparison_plots, readme
from sigah_jax.report.cells import METRICS, Cell, read_cells

MAIN = ("sigah", "sigah_one_head", "sigah_paper", *METHODS)
ABLATION = ("sigah", "sigah_one_head", *(name for name in VARIANTS if name not in MAIN))
BITS = (16, 32, 48, 64, 96, 128)
SHORT_BITS = 64  # of the ablation and the curves
SHORT_METRICS = ("map", "map@1000", "precision@100", "recall@10", "recall@100", "1-recall@10")


def declare(args) -> list[tuple[str, str, int, int]]:
    """(data, method, bits, seed) of all cells asked for; one seed where the key changes nothing."""
    cells = []
    for data in args.datasets:
        for bits in args.bits:
            for method in args.methods:
                random = method in VARIANTS or METHODS[method].random
                cells += [(data, method, bits, seed) for seed in range(args.seeds if random else 1)]
    return cells


def refuse(cells: list[tuple[str, str, int, int]], root: Path) -> None:
    """BadInput for a cell that cannot be run, or is there but of another file or other settings."""
    for data, method, bits, seed in cells:
        make_config(data, method, bits, seed)
        path = cell_path(root, data, method, bits, seed)
        if of_other_file(path, data):
            raise BadInput(f"--datasets={data}: {path} is of another file; use another name")
        if of_other_settings(path, method, bits):
            raise BadInput(
                f"{path}: trained with other settings than now; remove it and its run, then it "
                "is run again"
            )


def job_of(cell: tuple[str, str, int, int], args) -> local.Job:
    """The command of one cell."""
    data, method, bits, seed = cell
    name = f"{data_name(data)} {method} {bits} bits seed {seed}"
    argv = [sys.executable, "-m", "experiments.cell", f"--data={data}", f"--method={method}"]
    argv += [f"--bits={bits}", f"--seed={seed}", f"--results={args.results}", f"--runs={args.runs}"]
    log = args.runs / "logs" / f"{name.replace(' ', '_')}.log"
    lock = cell_path(args.runs, *cell).with_suffix("") / "lock"  # of a run; a baseline has none
    return local.Job(name, argv, log, cell_path(args.results, *cell), lock)


def documents(cells: list[Cell]) -> dict[str, str]:
    """File name -> text of the tables of all data sets that have a cell."""
    rivals = against_best(cells)
    md = ["# Results", "", GENERATED, "", "## SiGAH against the best baseline", ""]
    md += [comparison.markdown(*rivals)]
    tex = [comparison.latex(*rivals, "SiGAH / the best baseline"), ""]
    for dataset in sorted({c.dataset for c in cells}):
        origin = next((c.data for c in cells if c.dataset == dataset and c.data), "")
        md += ["", f"## {dataset}", "", f"{origin}."]
        for metric in METRICS:
            table = comparison.over_bits(cells, dataset, metric, MAIN, BITS)
            md += ["", comparison.markdown(*table)]
            tex += [comparison.latex(*table, f"{dataset}, {metric}"), ""]
        if any(c.dataset == dataset and c.method in ABLATION[2:] for c in cells):
            table = comparison.over_metrics(cells, dataset, SHORT_BITS, ABLATION, METRICS)
            md += ["", f"### Ablation of SiGAH at {SHORT_BITS} bits", ""]
            md += [comparison.markdown(*table)]
            tex += [comparison.latex(*table, f"{dataset}, ablation of SiGAH"), ""]
    return {"tables.md": "\n".join(md) + "\n", "tables.tex": "\n".join(tex) + "\n"}


GENERATED = """Written by `python -m experiments.paper_tables`, not edited by hand. Mean ± standard
deviation over seeds; best mean of a column in bold, second underlined. `map`, `area_rp`: relevant
are the true top 2 %; `map@1000`, `precision@100`: the top 1,000, the ranking never cut;
`recall@R`: the 10 nearest; `1-recall@R`: the nearest."""


def against_best(cells: list[Cell]) -> tuple[list[str], list[list[tuple[str, int]]]]:
    """SiGAH and the best baseline of every data set and code length."""
    return comparison.against_best(cells, "sigah", tuple(METHODS), BITS, SHORT_METRICS)


def short_table(cells: list[Cell], name: str) -> str:
    """A table of the README: `mnist 64` is a data set at a code length, `best` is all of them."""
    if name == "best":
        return comparison.markdown(*against_best(cells))
    dataset, bits = name.split()
    return comparison.markdown(
        *comparison.over_metrics(cells, dataset, int(bits), MAIN, SHORT_METRICS)
    )


def write(args) -> None:
    """Tables and plots of the cells there are, and the README's short form."""
    cells = read_cells(args.results)
    if not cells:
        return
    for name, text in documents(cells).items():
        whole.write_text(args.results / name, text)
    comparison_plots.draw(cells, MAIN, BITS, SHORT_BITS, args.results / "plots")
    if args.readme.exists():
        text = args.readme.read_text("utf-8")
        filled = readme.fill(text, lambda name: short_table(cells, name))
        whole.write_text(args.readme, filled)


def differing(args) -> list[str]:
    """The tables that are not those of the cells, and cells trained with other settings."""
    cells = read_cells(args.results)
    paths = [(cell_path(args.results, c.dataset, c.method, c.bits, c.seed), c) for c in cells]
    old = [str(path) for path, c in paths if of_other_settings(path, c.method, c.bits)]
    wanted = {args.results / name: text for name, text in documents(cells).items()}
    text = args.readme.read_text("utf-8")
    wanted[args.readme] = readme.fill(text, lambda name: short_table(cells, name))
    held = {p: p.read_text("utf-8") if p.exists() else None for p in wanted}
    return old + [str(p) for p, text in wanted.items() if held[p] != text]


def parse(argv: list[str] | None):
    """The flags, with lists split and names checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", default="mnist", help="experiment names, or NAME=FILE")
    parser.add_argument("--methods", default=",".join(MAIN), help="names, main or ablation")
    parser.add_argument("--bits", default=",".join(map(str, BITS)))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--devices", default="", help="GPUs 0,1,…, a process each; default one")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/paper_tables"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--dry_run", action="store_true", help="print the missing cells and stop")
    parser.add_argument("--check", action="store_true", help="run nothing; fail if a table is old")
    args = parser.parse_args(argv)
    args.datasets = args.datasets.split(",")
    groups = {"main": MAIN, "ablation": ABLATION}
    args.methods = [m for name in args.methods.split(",") for m in groups.get(name, (name,))]
    unknown = [m for m in args.methods if m not in VARIANTS and m not in METHODS]
    if unknown:
        raise BadInput(f"--methods: {unknown[0]!r} is none of {', '.join((*MAIN, *ABLATION[2:]))}")
    if not all(k.isdecimal() and int(k) for k in args.bits.split(",")):
        raise BadInput(f"--bits={args.bits}: expected whole numbers above 0, with commas between")
    args.bits = [int(k) for k in args.bits.split(",")]
    return args


@command("the same command resumes")
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 a cell failed or a table is old, 2 bad input, 130 interrupted."""
    args = parse(argv)
    if args.check:
        old = differing(args)
        for path in old:
            print(f"{path}: old; run python -m experiments.paper_tables")
        return int(bool(old))
    cells = declare(args)
    refuse(cells, args.results)
    missing = [c for c in cells if not cell_path(args.results, *c).exists()]
    for file in {data.partition("=")[2] for data, *_ in missing} - {""}:
        open_file(file)  # BadInput before the first of many cells
    print(f"{len(missing)} of {len(cells)} cells to run", flush=True)
    if args.dry_run:
        for cell in missing:
            print(*job_of(cell, args).argv[1:])
        return 0
    jobs = [job_of(cell, args) for cell in missing]
    failed = local.run_jobs(jobs, local.device_slots(args.devices), retries=0)
    write(args)
    for job, why in failed:
        print(f"failed: {job.name}: {why}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
