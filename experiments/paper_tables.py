"""The paper's tables: declares the cells, runs those that are missing, writes tables and plots.

    python -m experiments.paper_tables --datasets=mnist --bits=64 --seeds=1
    python -m experiments.paper_tables --datasets=mnist,mine=my.npy --devices=0,1,2,3

There are two comparisons: binary codes by Hamming distance, and what real-valued queries find in
codes of equal bytes, where the rivals are quantisers.

A cell that is there is not run again, so the same command resumes after an interrupt, and two at
the same time share the cells: `launch.local`. `results/` then holds the cells, `tables.md`,
`tables.tex` and `plots/`, and README.md its short form.

Not responsible for how a cell is run: `experiments.cell`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import itertools
import sys
from pathlib import Path

from experiments import cell
from experiments.cell import VARIANTS
from launch import local
from sigah_jax.baselines import quantisers
from sigah_jax.baselines.methods import METHODS
from sigah_jax.data.datasets import open_file
from sigah_jax.errors import BadInput, command
from sigah_jax.files import whole
from sigah_jax.report import cells, comparison, comparison_plots
from sigah_jax.report.cells import METRICS, REAL_METRICS
from sigah_jax.report.tables import METRIC_NAMES

MAIN = ("sigah", "sigah_one_head", "sigah_paper", *METHODS)
BINARY = ("sigah", "sigah_both", "sigah_plain", *MAIN[1:])  # rows
ABLATION = ("sigah_plain", "sigah_one_head", *(name for name in VARIANTS if name not in BINARY))
REAL = ("sigah_stages", "sigah_synthetic", "sigah_projection", *quantisers.NAMES)  # rows
BITS = (16, 32, 48, 64, 96, 128)
REAL_BITS = (*BITS, 256, 512)
SHORT_BITS = 64  # of the ablation and the curves
SHORT_METRICS = ("map", "map@1000", "precision@100", "recall@10", "recall@100", "1-recall@10")


def declare(args) -> list[tuple[str, cells.Line]]:
    """The data and the line of each cell asked for; one seed where the key changes nothing.

    Raises:
        BadInput: a cell cannot be run, or is there but of another file or of other settings.
    """
    wanted = []
    for data, bits, method in itertools.product(args.datasets, args.bits, args.methods):
        random = method in (*VARIANTS, *quantisers.RANDOM)
        random |= method in METHODS and METHODS[method].random
        for seed in range(args.seeds if random else 1):
            cell.make_config(data, method, bits, seed)
            for line in cell.lines_of(args.results, data, method, bits, seed):  # its own is last
                if cell.of_other_file(line, data):
                    raise BadInput(
                        f"--datasets={data}: {line} is of another file; use another name"
                    )
            if cell.of_other_settings(line):
                raise BadInput(
                    f"{line}: trained with other settings than now; remove the line and its run, "
                    "then it is run again"
                )
            wanted.append((data, line))
    return wanted


def job_of(data: str, line: cells.Line, args) -> local.Job:
    """The command of one cell."""
    _, method, bits, seed = line
    name = f"{cell.data_name(data)} {method} {bits} bits seed {seed}"
    argv = [sys.executable, "-m", "experiments.cell", f"--data={data}", f"--method={method}"]
    argv += [f"--bits={bits}", f"--seed={seed}", f"--results={args.results}", f"--runs={args.runs}"]
    log = args.runs / "logs" / f"{name.replace(' ', '_')}.log"
    lock = cell.run_directory(args.runs, data, method, bits, seed) / "lock"  # SiGAH alone makes it
    return local.Job(name, argv, log, line, lock)


def texts(found: list[cells.Cell], args) -> dict[Path, str]:
    """The tables of the cells by the file that they stand in: Markdown, LaTeX, the README."""
    md = ["# Results", "", GENERATED]
    tex = []

    def add(table: comparison.Grid, caption: str) -> None:
        md.extend(["", comparison.markdown(*table)])
        tex.extend([comparison.latex(*table, caption), ""])

    md += ["", "## SiGAH against the best baseline"]
    add(against_best(found), "SiGAH / the best baseline")
    for dataset in sorted({c.dataset for c in found}):
        mine = [c for c in found if c.dataset == dataset]
        origin = next((c.data for c in mine if c.data), "")
        md += ["", f"## {dataset}", "", f"{origin}."]
        for metric in METRICS:
            table = comparison.over_bits(mine, dataset, metric, BINARY, BITS)
            add(beside_paper(*table), f"{dataset}, {metric}")
        if any(c.method in REAL for c in mine):
            md += ["", "### Real-valued queries at equal bytes", "", REAL_QUERIES]
            for metric in REAL_METRICS:
                table = comparison.over_bytes(mine, dataset, metric, REAL, REAL_BITS)
                add(table, f"{dataset}, real-valued queries, {METRIC_NAMES.get(metric, metric)}")
        if any(c.method in ABLATION[2:] for c in mine):
            table = comparison.over_metrics(mine, dataset, SHORT_BITS, ABLATION, METRICS)
            md += ["", f"### Ablation of SiGAH at {SHORT_BITS} bits, no codes refined"]
            add(table, f"{dataset}, ablation of SiGAH, no codes refined")
    made = {args.results / "tables.md": "\n".join(md) + "\n"}
    made[args.results / "tables.tex"] = "\n".join(tex) + "\n"
    if args.readme.exists():
        text = args.readme.read_text("utf-8")
        made[args.readme] = comparison.fill(text, lambda name: short_table(found, name))
    return made


def beside_paper(header: list[str], body: list[list[tuple[str, int]]]) -> comparison.Grid:
    """A table of all methods with a column for the paper's numbers, which were not available."""
    words = ["not available" if method.startswith("sigah") else "" for method in BINARY]
    return [*header, "paper"], [[*row, (w, 0)] for row, w in zip(body, words, strict=True)]


GENERATED = """Written by `python -m experiments.paper_tables`, not edited by hand. Mean ± standard
deviation over seeds; best mean of a column in bold, second underlined. `map`, `area_rp`: relevant
are the true top 2 %; `map@1000`, `precision@100`: the top 1,000, the ranking never cut;
`recall@R`: the 10 nearest; `1-recall@R`: the nearest."""

REAL_QUERIES = """All that is stored of a row counts. `recall@10 re-ranked`: the 100 rows found,
ranked by their vectors; `ms a query`: finding them in the whole base, all queries together,
decoding included where rows are decoded; `s to encode`: the base, with compilation."""


def against_best(found: list[cells.Cell], method: str = "sigah") -> comparison.Grid:
    """SiGAH, or a variant of it, and the best baseline of every data set and code length."""
    return comparison.against_best(found, method, tuple(METHODS), BITS, SHORT_METRICS)


def short_table(found: list[cells.Cell], name: str) -> str:
    """A table of the README by its name.

    `mnist 64` is a data set at a code length, `real mnist 64` the same of real-valued queries,
    `best` all data sets and lengths, `best sigah_plain` those of a variant.
    """
    first, *others = name.split()
    if first == "best":
        return comparison.markdown(*against_best(found, *others))
    rows, metrics = (REAL, REAL_METRICS) if first == "real" else (BINARY, SHORT_METRICS)
    dataset, bits = name.split()[-2:]
    return comparison.markdown(*comparison.over_metrics(found, dataset, int(bits), rows, metrics))


def write(args) -> None:
    """Tables and plots of the cells there are, and the README's short form."""
    found = cells.read_cells(args.results)
    if found:
        for path, text in texts(found, args).items():
            whole.write_text(path, text)
        comparison_plots.draw(found, BINARY, BITS, SHORT_BITS, args.results / "plots")


def old(args) -> list[str]:
    """The files whose tables are not those of the cells, and cells trained with other settings."""
    found = cells.read_cells(args.results)
    lines = [cell.line_of(args.results, c.dataset, c.method, c.bits, c.seed) for c in found]
    names = [str(line) for line in lines if cell.of_other_settings(line)]
    for path, text in texts(found, args).items():
        if not path.exists() or path.read_text("utf-8") != text:
            names.append(str(path))
    return names


def parse(argv: list[str] | None):
    """The flags, with lists split and names checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", default="mnist", help="experiment names, or NAME=FILE")
    parser.add_argument("--methods", default="main,real", help="names, main, real or ablation")
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
    groups = {"main": MAIN, "real": quantisers.NAMES, "ablation": ABLATION}
    args.methods = [m for name in args.methods.split(",") for m in groups.get(name, (name,))]
    known = (*VARIANTS, *METHODS, *quantisers.NAMES)
    unknown = [m for m in args.methods if m not in known]
    if unknown:
        raise BadInput(f"--methods: {unknown[0]!r} is none of {', '.join((*groups, *known))}")
    if not all(k.isdecimal() and int(k) for k in args.bits.split(",")):
        raise BadInput(f"--bits={args.bits}: expected whole numbers above 0, with commas between")
    args.bits = [int(k) for k in args.bits.split(",")]
    if args.seeds < 1:
        raise BadInput(f"--seeds={args.seeds}: expected 1 or more")
    return args


@command("the same command resumes")
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 a cell failed or a table is old, 2 bad input, 130 interrupted."""
    args = parse(argv)
    if args.check:
        names = old(args)
        for name in names:
            print(f"{name}: old; run python -m experiments.paper_tables")
        return int(bool(names))
    wanted = declare(args)
    missing = [(data, line) for data, line in wanted if not line.exists()]
    for file in {data.partition("=")[2] for data, _ in missing} - {""}:
        open_file(file)  # BadInput before the first of many cells
    print(f"{len(missing)} of {len(wanted)} cells to run", flush=True)
    jobs = [job_of(data, line, args) for data, line in missing]
    if args.dry_run:
        for job in jobs:
            print(*job.argv[1:])
        return 0
    failed = local.run_jobs(jobs, local.device_slots(args.devices), retries=0)
    write(args)
    for job, why in failed:
        print(f"failed: {job.name}: {why}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
