"""The paper's tables: declares the cells, runs those that are missing, writes tables and plots.

    python -m experiments.paper_tables --datasets=mnist --bits=64 --seeds=1
    python -m experiments.paper_tables --datasets=mnist,mine=my.npy --devices=0,1,2,3

There are two comparisons: binary codes by Hamming distance, and what real-valued queries find in
codes of equal bytes, where the rivals are quantisers.

A cell that is there is not run again, so the same command resumes after an interrupt, and two at
the same time share the cells: `launch.local`. `results/` then holds the cells, `tables.tex` and
`plots/`; `docs/results.md` and README.md have their tables filled in. Of other `--results` no page
is filled in unless `--page` or `--readme` names it.

Not responsible for how a cell is run (`experiments.cell`), nor for what stands in which table
(`experiments.pages`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import collections
import itertools
import sys
from pathlib import Path

from experiments import cell, pages
from experiments.cell import VARIANTS
from launch import local
from sigah_jax.baselines import quantisers
from sigah_jax.baselines.methods import METHODS
from sigah_jax.command_line import Parser, at_least, command, whole_numbers
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.formats.vectors import open_file
from sigah_jax.report import cells, comparison_plots

MAIN = ("sigah", "sigah_one_head", "sigah_paper", *METHODS)
WAYS = ("sigah", "sigah_both", "sigah_plain")  # of the plots of codes, beside the best baselines
PAGES = {"page": Path("docs/results.md"), "readme": Path("README.md")}
PLOTTED = ("sigah", "sigah_both", "sigah_stages", "itq", *pages.OPQ, "rq", "rabitq")  # over bytes


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
            lines = cell.lines_of(args.results, data, method, bits, seed)
            for line in lines:
                cell.check_file(line, data)
            line = lines[-1]  # the method's own
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
    """The tables of the cells by the file that they stand in."""
    made = {page: pages.filled(found, page) for page in args.pages}
    return {args.results / "tables.tex": pages.latex(found)} | made


def write(args) -> None:
    """Tables and plots of the cells there are."""
    found, directory = cells.read_cells(args.results), args.results / "plots"
    if not found:
        return
    for path, text in texts(found, args).items():
        whole.write_text(path, text)
    if found := pages.with_sigah(found):
        methods, bits = (*WAYS, *METHODS), pages.BITS
        comparison_plots.draw(found, methods, bits, pages.SHORT_BITS, directory, WAYS)
        lengths = {(c.dataset, c.bits) for c in found if c.method == PLOTTED[0]}
        several = collections.Counter(dataset for dataset, _ in lengths)
        found = [c for c in found if several[c.dataset] > 1]  # one length is not a line
        path = directory / "recall_10_bytes.png"
        where = pages.REAL_BITS, path, "bytes"
        comparison_plots.over_length(found, "recall@10", PLOTTED, *where, always=PLOTTED)


def old(args) -> list[str]:
    """The files whose tables are not those of the cells, and cells trained with other settings."""
    found = cells.read_cells(args.results)
    lines = [cell.line_of(args.results, c.dataset, c.method, c.bits, c.seed) for c in found]
    names = [str(line) for line in lines if cell.of_other_settings(line)]
    for path, text in texts(found, args).items():
        if not path.exists() or pages.read(path) != text:
            names.append(str(path))
    return names


def parse(argv: list[str] | None):
    """The flags, with lists split and names checked."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", default="mnist", help="experiment names, or NAME=FILE")
    parser.add_argument("--methods", default="main,real", help="names, main, real or ablation")
    parser.add_argument("--bits", type=whole_numbers, default=",".join(map(str, pages.BITS)))
    parser.add_argument("--seeds", type=at_least(1), default=3, help="how many, from 0 on")
    parser.add_argument("--devices", default="", help="GPUs 0,1,…, a process each; default one")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/paper_tables"))
    parser.add_argument(
        "--page",
        type=Path,
        help=f"page of all tables; with --results=results it is {PAGES['page']} by default",
    )
    parser.add_argument(
        "--readme",
        type=Path,
        help=f"page of some tables; with --results=results it is {PAGES['readme']} by default",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the missing cells and stop")
    parser.add_argument("--check", action="store_true", help="run nothing; fail if a table is old")
    args = parser.parse_args(argv)
    args.datasets = list(dict.fromkeys(args.datasets.split(",")))
    groups = {"main": MAIN, "real": quantisers.NAMES, "ablation": pages.ABLATION}
    args.methods = [m for name in args.methods.split(",") for m in groups.get(name, (name,))]
    known = (*VARIANTS, *METHODS, *quantisers.NAMES)
    unknown = [m for m in args.methods if m not in known]
    if unknown:
        raise BadInput(f"--methods: {unknown[0]!r} is none of {', '.join((*groups, *known))}")
    args.pages = []
    for flag, default in PAGES.items():
        page = getattr(args, flag)
        if page and not page.is_file():
            raise BadInput(f"--{flag}={page}: no such page; its markers say what is filled in")
        if not page and args.results == Path("results") and default.exists():
            page = default  # other results are not those that this page speaks of
        args.pages += [page] if page else []
    return args


@command("the same command resumes")
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 a cell failed or a table is old, 2 bad input, 130 interrupted."""
    args = parse(argv)
    if args.check:
        if not args.results.is_dir():
            raise BadInput(
                f"--results={args.results}: no such directory, so nothing can be checked"
            )
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
    slots = local.device_slots(args.devices)
    if args.dry_run:
        for job in jobs:
            print(*job.argv[1:])
        return 0
    failed = local.run_jobs(jobs, slots, retries=0)
    write(args)
    for job, why in failed:
        print(f"failed: {job.name}: {why}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
