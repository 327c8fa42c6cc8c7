"""Sweeps as a user gives them: points, commands, refusals, a real grid that is stopped."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import hashers
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags
from waiting import wait_for

from launch import local, sweep
from sigah_jax import config
from sigah_jax.run import rundir

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted(
    p for p in (ROOT / "experiments").glob("*.py") if "\ndef sweep(" in p.read_text()
)
MNIST = f"--config={ROOT}/experiments/mnist.py"
HEAD = "from sigah_jax import config\n\ndef get_config(arguments=''):\n    c = config.get_config(arguments)\n    c.data.name = 'mnist'\n    return c\n\n"  # noqa: E501


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan(*argv):
    return sweep.plan(sweep.parse(list(argv)))


def experiment(body):
    """An experiment file with this `sweep`."""
    Path("mine.py").write_text(f"{HEAD}def sweep(h):\n    return {body}\n")
    return "--config=mine.py"


def refusal(capsys, *argv):
    """What is said of a command that exits with 2, in one line, and starts nothing."""
    assert sweep.main(list(argv)) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and not Path("runs").exists()
    return err


def as_main_reads(argv):
    """The config and run directory that `sigah_jax.main` makes of a command line."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_string("cache", None, "", flag_values=values)
    config_flags.DEFINE_config_file("config", None, "", values, sys_argv=argv)
    values(argv)
    flag = values["config"]
    name = Path(config_flags.get_config_filename(flag)).stem
    overrides = config_flags.get_override_values(flag)
    return flag.value, rundir.run_directory(flag.value, name, overrides), values.workdir


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_point_of_every_experiment_is_a_run_that_main_reads_alike(file):
    data = ["--config.data.base=my.npy"] if file.stem == "vectors" else []
    jobs = plan(f"--config={file}", *data)
    assert len(jobs) >= 3 and list(jobs) == list(range(len(jobs)))
    for job in jobs.values():
        _, directory, workdir = as_main_reads(["main", *job.argv[3:]])
        assert str(directory) == workdir == str(job.done.parent)
    assert len({job.done for job in jobs.values()}) == len(jobs)


def test_mnist_is_bits_times_seeds():
    jobs = plan(MNIST)
    assert len(jobs) == 6 * 3
    assert jobs[4].name == "4 bits=32 seed=1"
    assert jobs[4].done == Path("runs/mnist/preset=best,bits=32/seed1/results.json")
    assert jobs[4].log == Path("runs/mnist/preset=best,bits=32/seed1.log")
    assert {job.argv[-1] for job in jobs.values()} == {"--cache=runs/mnist/data"}


def test_fields_of_every_type_reach_main():
    body = """[
        {"optim.gen_lr": 1, "model.hash_widths": ()},
        {"optim.gen_lr": 2e-5, "model.hash_widths": (32, 16)},
        {"preset": "paper", "eval.baselines": ("itq",)},
    ]"""
    jobs = plan(experiment(body), "--config.model.linear_path=True", "--config.data.dir=/a b")
    configs = []
    for job in jobs.values():
        read, directory, workdir = as_main_reads(["main", *job.argv[3:]])
        assert str(directory) == workdir
        configs.append(read)
    assert [c.optim.gen_lr for c in configs] == [1.0, 2e-5, 5e-4]  # the last is the preset's
    assert [tuple(c.model.hash_widths) for c in configs] == [(), (32, 16), (1024,)]
    assert tuple(configs[2].eval.baselines) == ("itq",) and configs[2].preset == "paper"
    assert all(c.data.dir == "/a b" for c in configs)


def test_what_is_given_holds_for_every_point_and_equal_points_are_one():
    jobs = plan(f"{MNIST}:bits=64,preset=paper", "--config.train.steps=40")
    assert [job.name for job in jobs.values()] == ["0 seed=0", "1 seed=1", "2 seed=2"]
    assert all("--config.train.steps=40" in job.argv for job in jobs.values())
    assert jobs[0].argv[3] == f"{MNIST}:preset=paper,bits=64"


@pytest.mark.parametrize(
    "only, expected", [("2:4", [2, 3]), (":2", [0, 1]), ("16:", [16, 17]), ("17:99", [17])]
)
def test_only_chooses_points_that_keep_their_numbers(only, expected):
    assert list(plan(MNIST, f"--only={only}")) == expected


@pytest.mark.parametrize(
    "body, words",
    [
        ('h.sweep("bits", (32, 0))', "point 1 bits=0: config argument bits=0"),
        ('h.sweep("optim.gen_lr", (1e-3, -1.0))', "point 1 optim.gen_lr=-1.0: config.optim.gen_lr"),
        ('h.sweep("optim.speed", (1,))', "point 0 optim.speed=1: config.optim.speed=1"),
        ('h.sweep("train.steps", ("many",))', "point 0 train.steps=many: config.train.steps"),
        ('h.sweep("model.bits", [32])', "model.bits=32: config.model.bits cannot be changed"),
        ('[{"bits": 64}, {"seed": 0}, {"seed": 1}]',
         "'0 bits=64' and '1 seed=0' would write one directory"),
        ('h.product(h.sweep("seed", [1]), h.sweep("seed", [2]))', "seed is in two parts"),
        ("[]", "--config=mine.py: its sweep(h) gives no points"),
        ("1 / 0", "mine.py: sweep failed in line"),
    ],
)  # fmt: skip
def test_a_point_that_no_run_could_use_is_named_before_anything_starts(body, words, capsys):
    assert words in refusal(capsys, experiment(body))


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--config=none.py"], "--config=none.py: no such Python file"),
        ([f"--config={ROOT}/experiments/cell.py"], "has no sweep(h)"),
        ([MNIST, "--only=3"], "--only=3: expected i:j"),
        ([MNIST, "--only=18:"], "no such point among 18"),
        ([MNIST, "--steps=3"], "--steps=3: no such flag"),
        ([MNIST, "--config.train.steps"], "--config.train.steps: no such flag"),
        ([MNIST, "--retries=-1"], "--retries: expected 0 or more, got -1"),
        ([MNIST, "--devices=0,,1"], "--devices=0,,1: name GPUs with commas between"),
        ([MNIST, "--executor=sky"], "--accelerators is missing"),
        ([MNIST, "--devices=0", "--executor=slurm"], "--devices: is of --executor=local"),
        ([MNIST, "--sbatch=--time=1"], "--sbatch: is of --executor=slurm"),
        ([MNIST, "--executor=slurm", "--sbatch=--x='a", "--dry_run"], "No closing quotation"),
        ([MNIST, "--executor=sky", "--accelerators=L4:1"], "--bucket is missing"),
    ],
)
def test_wrong_flags_are_named(argv, words, capsys):
    assert words in refusal(capsys, *argv)


def test_a_file_without_a_config_is_named(capsys):
    Path("mine.py").write_text("def sweep(h):\n    return []\n")
    assert "mine.py: has no get_config(arguments)" in refusal(capsys, "--config=mine.py")


def test_a_run_of_some_devices_joins_no_others():
    alone = "--config.distributed=off"
    runs = plan(MNIST, "--devices=0,1")
    assert all(alone in job.argv for job in runs.values())
    assert [job.done for job in runs.values()] == [job.done for job in plan(MNIST).values()]
    for argv in ([], ["--executor=slurm"]):
        assert not any(alone in job.argv for job in plan(MNIST, *argv).values())


def test_a_file_that_cannot_be_loaded_is_named(capsys):
    Path("mine.py").write_text("def sweep(h) return")
    assert "mine.py: cannot be loaded in line 1 (SyntaxError" in refusal(capsys, "--config=mine.py")


def test_an_executor_that_does_not_exist_is_named(capsys):
    assert "--executor: invalid choice: 'pbs'" in refusal(capsys, MNIST, "--executor=pbs")


def test_a_directory_made_by_another_config_is_refused(capsys):
    file = experiment('h.sweep("bits", (32, 64))')
    workdir = plan(file)[1].done.parent
    c = config.get_config("bits=64")
    c.data.name = "mnist"
    rundir.claim(workdir, c).close()
    (workdir / "checkpoints" / "400").mkdir(parents=True)
    (workdir / "checkpoints" / "400" / rundir.SEAL).write_text("{}")
    assert len(plan(file)) == 2
    text = Path("mine.py").read_text()
    Path("mine.py").write_text(text.replace("return c", "c.optim.gen_lr = 0.1; return c"))
    assert sweep.main([file]) == 2
    err = capsys.readouterr().err
    assert f"point 1 bits=64: {workdir}: made by another config" in err
    assert not (workdir.parent / "seed0.log").exists()


@pytest.mark.parametrize("executor", ["local", "slurm", "sky"])
def test_a_dry_run_prints_every_command_and_does_nothing(executor, capsys):
    flags = ["--accelerators=L4:1", "--bucket=gs://b"] if executor == "sky" else []
    assert sweep.main([MNIST, f"--executor={executor}", "--only=:3", "--dry_run", *flags]) == 0
    out = capsys.readouterr().out
    for seed in range(3):
        assert f"{MNIST}:bits=16 --config.seed={seed} --workdir=runs/mnist" in out
    assert not Path("runs").exists()


SHORT = [
    "--config.data.test_queries=100",
    "--config.data.val_queries=50",
    "--config.train.anchors=16",
    "--config.train.steps=20",
    "--config.train.steps_per_call=5",
    "--config.eval.every_steps=10",
    "--config.eval.baselines=()",
    "--config.model.hash_widths=(32,)",
    "--config.model.dis_widths=(16,)",
    "--config.model.decoder=linear",  # compiled in less time
    "--config.refine.iterations=0",
    "--config.refit.share=0",
]


def test_a_sweep_that_was_stopped_goes_on_and_one_that_is_finished_runs_nothing(
    tmp_path, monkeypatch, capsys
):
    np.save("x.npy", hashers.vectors(1000, 16))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    argv = [f"--config={ROOT}/experiments/vectors.py:bits=16", "--config.data.base=x.npy", *SHORT]
    command = [sys.executable, "-m", "launch.sweep", *argv]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.rglob("metrics.jsonl")), first, secs=200)
    first.send_signal(signal.SIGINT)
    assert (
        "the same command resumes" in first.communicate(timeout=60)[1] and first.returncode == 130
    )
    (job,) = plan(*argv).values()
    assert not job.done.exists()
    assert sweep.main(argv) == 0
    assert "1/1 done, 0 failed" in capsys.readouterr().out
    assert json.loads(job.done.read_text())["bits"] == 16
    assert job.log.read_text().count("$ ") == 2  # one log, two starts
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert sweep.main(argv) == 0
    assert "1 points, 1 of them finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_run_that_fails_is_reported_with_its_last_line(capsys):
    file = [f"--config={ROOT}/experiments/vectors.py", "--config.data.base=none.npy", "--only=:1"]
    assert sweep.main(file) == 1
    log = next(iter(plan(*file).values())).log
    err = capsys.readouterr().err
    assert err.startswith("failed: 0 bits=32: error: ") and "none.npy" in err and str(log) in err
    assert local.last_line(log) in err
