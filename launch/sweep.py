"""A sweep: every point of an experiment's `sweep(h)` is a run of `sigah_jax.main`.

    python -m launch.sweep --config=experiments/mnist.py --dry_run
    python -m launch.sweep --config=experiments/mnist.py --devices=0,1,2,3 --config.train.steps=2000
    python -m launch.sweep --config=experiments/mnist.py --executor=slurm \
        --sbatch="--partition=gpu --gres=gpu:1 --time=4:00:00"
    python -m launch.sweep --config=experiments/mnist.py --executor=sky \
        --accelerators=L4:1 --bucket=gs://mine

What is given on the command line, by `--config.field=value` or `--config=FILE:bits=64`, holds for
every point. Every point is checked before anything starts. A run has the directory that the same
command would have by hand, and one that is finished is not run again; ground truth and neighbour
graph are shared by all points, in `runs/<experiment>/data`.

Not responsible for running (`launch.local`, `slurm`, `sky`) nor for tables (`launch.collect`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import ast
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from launch import grid, local, sky, slurm
from sigah_jax import config_file
from sigah_jax.command_line import Parser, at_least, command
from sigah_jax.config import change, fields_of
from sigah_jax.config_checks import validate
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.run import rundir

ARGUMENTS = ("preset", "bits")  # of `get_config`; a point's other names are fields


def load_experiment(file: str) -> ModuleType:
    """The module of an experiment file, which must have `get_config` and `sweep`."""
    module = config_file.load(file)
    if not hasattr(module, "sweep"):
        raise BadInput(f"--config={file}: has no sweep(h); experiments/mnist.py shows one")
    return module


def points_of(experiment: ModuleType, given: grid.Point) -> list[grid.Point]:
    """The points of an experiment with what was given in place of theirs; equal ones are one."""
    with config_file.telling(experiment.__file__, "sweep failed"):
        points = [point | given for point in experiment.sweep(grid)]
    return [point for i, point in enumerate(points) if point not in points[:i]]


def job_of(name: str, point: grid.Point, file: str, experiment: ModuleType) -> local.Job:
    """The run of a point; BadInput, naming the point, if it would fail."""
    arguments = ",".join(f"{key}={point[key]}" for key in ARGUMENTS if key in point)
    fields = {key: value for key, value in point.items() if key not in ARGUMENTS}
    try:
        config = config_file.config_of(experiment, arguments)
        for field, value in fields.items():
            change(config, field, value)
        validate(config, 1)  # how many devices a run will have, it looks itself
        held = fields_of(config)
        fields = {field: held[field] for field in fields}
        workdir = rundir.run_directory(config, Path(file).stem, fields)
        begun = (workdir / "config.json").exists() and rundir.begun(workdir)
        if begun and rundir.read_config(workdir)[1] != rundir.config_hash(config):
            raise BadInput(f"{workdir}: made by another config; move it away, or undo the change")
    except BadInput as e:
        raise BadInput(f"point {name}: {e}") from e
    argv = [sys.executable, "-m", "sigah_jax.main", f"--config={file}:{arguments}".rstrip(":")]
    argv += [f"--config.{field}={value}" for field, value in fields.items()]
    argv += [f"--workdir={workdir}", f"--cache={Path('runs') / Path(file).stem / 'data'}"]
    log = workdir.with_name(f"{workdir.name}.log")
    return local.Job(name, argv, log, workdir / "results.json", workdir / "lock")


def plan(args: argparse.Namespace) -> dict[int, local.Job]:
    """The runs that were asked for, by the number of their point."""
    experiment = load_experiment(args.file)
    jobs, owners = {}, {}
    for number, point in enumerate(points_of(experiment, args.given)):
        own = [f"{key}={value}" for key, value in point.items() if key not in args.given]
        job = job_of(" ".join([str(number), *own]), point, args.file, experiment)
        other = owners.setdefault(job.done.parent, job)
        if other is not job:
            both = f"{other.name!r} and {job.name!r}"
            raise BadInput(f"points {both} would write one directory, {job.done.parent}")
        jobs[number] = job
    if not jobs:
        raise BadInput(f"--config={args.file}: its sweep(h) gives no points")
    chosen = range(len(jobs))[args.only]
    if not chosen:
        raise BadInput(f"--only: there is no such point among {len(jobs)}")
    return {number: jobs[number] for number in chosen}


def run_local(jobs: dict[int, local.Job], args: argparse.Namespace) -> int:
    """Runs the points here; 1 if one failed."""
    slots = local.device_slots(args.devices)
    if args.dry_run:
        for job in jobs.values():
            print(f"{job.name}: {'finished' if job.done.exists() else shlex.join(job.argv)}")
        return 0
    failed = local.run_jobs(list(jobs.values()), slots, args.retries)
    for job, why in failed:
        print(f"failed: {job.name}: {why}", file=sys.stderr)
    return int(bool(failed))


def run_slurm(jobs: dict[int, local.Job], args: argparse.Namespace) -> int:
    """Submits the points that are not finished as one array job."""
    stem = Path(args.file).stem
    directory = Path("runs") / stem / "slurm"
    missing = {number: job for number, job in jobs.items() if not job.done.exists()}
    if not missing:
        print("every point is finished")
        return 0
    text = slurm.script(f"sweep-{stem}", missing, args.sbatch, directory, args.retries)
    path = directory / "sweep.sh"
    if args.dry_run:
        print(f"{text}\n# would be written to {path} and submitted: sbatch {path}")
    else:
        number = slurm.submit(text, path)
        print(f"array job {number}: {len(missing)} points, {path}; watch: squeue --jobs={number}")
    return 0


def write_sky(jobs: dict[int, local.Job], args: argparse.Namespace) -> int:
    """Writes a task file for every point that is not finished; prints how they are launched."""
    for flag in ("accelerators", "bucket"):
        if not getattr(args, flag):
            raise BadInput(f"--{flag} is missing; --executor=sky needs it, see launch/sky.py")
    stem = Path(args.file).stem
    for number, job in jobs.items():
        if job.done.exists():
            continue
        path = Path("runs") / stem / "sky" / f"{number}.yaml"
        text = sky.task(f"sweep-{stem}-{number}", job, args)
        if args.dry_run:
            print(f"# {path}\n{text}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.write_text(path, text)
        print(f"sky jobs launch --yes --detach-run {shlex.quote(str(path))}")
    return 0


EXECUTORS = {"local": run_local, "slurm": run_slurm, "sky": write_sky}
FLAGS = {  # of one executor alone
    "local": ("devices",),
    "slurm": ("sbatch",),
    "sky": ("accelerators", "bucket", "data_bucket"),
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Flags; `given` holds what was fixed for all points, `only` is a slice."""
    parser = Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", required=True, help="config file with sweep(h), and :arguments")
    parser.add_argument("--executor", default="local", choices=EXECUTORS, help="default: local")
    parser.add_argument("--dry_run", action="store_true", help="print what would be done, and stop")
    parser.add_argument("--only", default=":", help="i:j runs the points from i to j - 1")
    parser.add_argument(
        "--retries", type=at_least(0), default=2, help="new starts of a run that breaks; default 2"
    )
    parser.add_argument(
        "--devices", default="", help="local: GPUs 0,1,…, one for each run; 0,0: two runs share it"
    )
    parser.add_argument("--sbatch", default="", help="slurm: its flags, in quotes")
    parser.add_argument("--accelerators", default="", help="sky: L4:1, tpu-v5litepod-4, …")
    parser.add_argument("--bucket", default="", help="sky: gs://… or s3://…, for the runs")
    parser.add_argument(
        "--data_bucket", default="", help="sky: bucket of data sets, copied to /data"
    )
    args, rest = parser.parse_known_args(argv)
    args.file, _, arguments = args.config.partition(":")
    args.given = dict(part.partition("=")[::2] for part in arguments.split(",") if part)
    for flag in rest:
        name, equals, text = flag.partition("=")
        if not name.startswith("--config.") or not equals:
            raise BadInput(f"{flag}: no such flag; fields are set by --config.field=value")
        args.given[name.removeprefix("--config.")] = value_of(text)
    for executor, names in FLAGS.items():
        for name in names:
            if getattr(args, name) and executor != args.executor:
                raise BadInput(f"--{name}: is of --executor={executor}; leave it out")
    if args.devices:
        args.given.setdefault("distributed", "off")  # a slot's run is one process, and joins none
    first, colon, end = args.only.partition(":")
    if not colon or not all(part.isdecimal() or not part for part in (first, end)):
        raise BadInput(f"--only={args.only}: expected i:j, as in --only=0:4")
    args.only = slice(*(int(part) if part else None for part in (first, end)))
    return args


def value_of(text: str) -> Any:
    """A Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@command("the same command resumes")
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 a point failed, 2 bad input, 130 interrupted."""
    args = parse(argv)
    jobs = plan(args)
    finished = sum(job.done.exists() for job in jobs.values())
    print(f"{len(jobs)} points, {finished} of them finished", flush=True)
    return EXECUTORS[args.executor](jobs, args)


if __name__ == "__main__":
    sys.exit(main())
