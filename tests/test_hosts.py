"""Several processes on this machine: the whole program, as a cluster starts it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sets
from waiting import wait_for

from sigah_jax.devices import hosts
from sigah_jax.errors import BadInput
from sigah_jax.run import loading

SHORT = [
    "--config=experiments/vectors.py:bits=24",
    "--config.data.test_queries=50",
    "--config.data.val_queries=50",
    "--config.train.steps=40",
    "--config.train.steps_per_call=2",
    "--config.train.anchors=24",
    "--config.train.graph_neighbours=8",
    "--config.eval.every_steps=10",
    "--config.eval.baselines=()",
    "--config.model.hash_widths=(32,)",
    "--config.model.dis_widths=(16,)",
    "--config.model.decoder=linear",  # compiled in less time
]


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start(workdir, base, processes, *more, each=None, devices=1):
    """Starts the program in so many processes; `each[i]` are more arguments of process i."""
    command = [sys.executable, "-m", "sigah_jax.main", f"--workdir={workdir}", *SHORT]
    command += [f"--config.data.base={base}", *more]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    environment["PYTHONFAULTHANDLER"] = "1"  # for `abort`
    environment["JAX_COMPILATION_CACHE_DIR"] = str(base.parent / "compiled")
    if processes > 1:
        environment["JAX_COORDINATOR_ADDRESS"] = f"localhost:{free_port()}"
        environment["JAX_NUM_PROCESSES"] = str(processes)
    return [
        subprocess.Popen(
            [*command, *(each[i] if each else [])],
            env=environment | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]


def end(running, timeout=100):
    """Exit code, standard output and error of each process."""
    try:
        said = [process.communicate(timeout=timeout) for process in running]
    except subprocess.TimeoutExpired:
        raise AssertionError(abort(running)) from None
    return [(p.returncode, out, err) for p, (out, err) in zip(running, said, strict=True)]


def abort(running):
    """Ends processes that are late; what each said, and where it was (see faulthandler)."""
    for process in running:
        process.send_signal(signal.SIGSEGV)
    return [process.communicate(timeout=20) for process in running]


def run(*args, **more):
    return end(start(*args, **more))


def wait_for_step(workdir, step, running):
    """Until training has done so many steps."""
    rows = workdir / "metrics.jsonl"
    word = f'{{"step": {step},'
    try:
        wait_for(lambda: rows.exists() and word in rows.read_text(), *running, secs=100)
    except AssertionError:
        raise AssertionError(abort(running)) from None


def outcome(workdir):
    """Logged numbers of all trainings, results, projections of fixed rows."""
    files = [workdir / stage / "metrics.jsonl" for stage in (".", "refit", "alternation")]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    u = loading.load(workdir, "latest").project_queries(sets.rows(200, 20, 12))
    return rows, json.loads((workdir / "results.json").read_text()), u


def assert_same_run(workdir, other):
    """Equal but for the order in which floats are added."""
    rows, results, u = outcome(workdir)
    rows_other, results_other, u_other = outcome(other)
    assert [row["step"] for row in rows] == [row["step"] for row in rows_other]
    for row, row_other in zip(rows, rows_other, strict=True):
        for name in ("train/loss_gen", "train/loss_dis"):
            np.testing.assert_allclose(row[name], row_other[name], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(u, u_other, atol=0.02)
    assert (np.sign(u) == np.sign(u_other)).mean() > 0.999
    for name, value in results["metrics"]["sigah"].items():
        np.testing.assert_allclose(value, results_other["metrics"]["sigah"][name], atol=0.01)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "base.npy"
    np.save(path, sets.rows(1000, 20, 12))
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory, base):
    workdir = tmp_path_factory.mktemp("runs") / "alone"
    ((code, _, err),) = run(workdir, base, 1)
    assert code == 0, err
    return workdir


@pytest.fixture(scope="module")
def travelled(tmp_path_factory, base):
    """A run of three processes, of which one is killed; of two, of which one is terminated; of two.

    The second and the third have two devices each. In the third one process asks that hosts gather
    the rows, and so both do. What each process said, three times.
    """
    workdir = tmp_path_factory.mktemp("runs") / "travelled"
    three = start(workdir, base, 3)
    wait_for_step(workdir, 12, three)
    three[2].kill()
    killed = time.monotonic()
    first = end(three)
    assert time.monotonic() - killed < 60
    two = start(workdir, base, 2, devices=2)
    wait_for_step(workdir, 22, two)
    two[1].send_signal(signal.SIGTERM)
    each = [[], ["--config.train.gather=host"]]
    return workdir, first, end(two), run(workdir, base, 2, devices=2, each=each)


def test_a_killed_process_ends_the_others_with_a_line(travelled):
    for code, _, err in travelled[1][:2]:
        assert code == hosts.LOST
        assert "error: another process of this run was lost; the same command resumes" in err
        assert "Traceback" not in err


def test_sigterm_to_one_process_saves_and_ends_all(travelled):
    ended = travelled[2]
    assert [code for code, *_ in ended] == [143, 143], ended
    assert "resumed at step 10 of 84" in ended[0][1] and "SIGTERM: saved step" in ended[0][1]


def test_resumed_on_other_numbers_of_processes_it_ends_as_one_process_does(travelled, alone):
    workdir, ended = travelled[0], travelled[3]
    assert [code for code, *_ in ended] == [0, 0], ended
    assert "resumed at step 2" in ended[0][1]  # 22 or more, as saved at SIGTERM
    assert_same_run(workdir, alone)
    results = json.loads((workdir / "results.json").read_text())
    assert results["processes"] == 2 and results["device"].startswith("4 x")


def test_only_the_first_process_writes(travelled):
    workdir, *_, ended = travelled
    assert "SiGAH" in ended[0][1] and "4 x cpu" in ended[0][1]
    # gloo's own lines, which its threads may write into one another
    gloo = re.compile(r"\[Gloo\]|peer ranks|^$")
    assert [line for line in ended[1][1].splitlines() if not gloo.search(line)] == []
    assert (workdir / "log.txt").read_text().count("data: ") == 3
    made = [path.name.split("-")[0] for path in (workdir / "data").iterdir()]
    assert sorted(made) == ["graph", "ground_truth", "ground_truth"]


@pytest.mark.parametrize("processes", [1, 2])
def test_any_number_of_processes_evaluates_what_several_trained(travelled, base, processes):
    workdir = travelled[0]
    (workdir / "eval_best.json").unlink(missing_ok=True)
    for code, _, err in run(workdir, base, processes, "--mode=eval"):
        assert code == 0, err
    found, before = (sets.figures(workdir / name) for name in ("eval_best.json", "results.json"))
    assert found == before


def test_the_loss_of_the_first_process_ends_another_that_is_busy():
    code = "import os, time; hosts.join('on'); hosts.any_of(True); hosts.first() and os._exit(9)"
    environment = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
    }
    with ThreadPoolExecutor() as pool:
        each = [environment | {"JAX_PROCESS_ID": str(i)} for i in range(2)]
        done = list(pool.map(lambda e: python(f"{code}; time.sleep(90)", e), each))
    assert done[1].returncode == hosts.LOST
    assert done[1].stderr.endswith(
        "another process of this run was lost; the same command resumes\n"
    )


@pytest.mark.parametrize("process", [0, 1])
def test_sigterm_to_one_process_ends_all_also_where_nothing_is_saved(process):
    """The first is busy, as in an evaluation, and the other waits for it inside a collective."""
    code = "from sigah_jax.process import interrupts; interrupts.begin(); import time\n"
    code += "from sigah_jax.devices import hosts; hosts.join('on'); hosts.any_of(True)\n"
    # in one write and on a line of its own, whatever a collective prints at the same time
    code += "import os; os.write(1, b'\\nready\\n')\n"
    code += "time.sleep(60) if hosts.first() else hosts.any_of(True)"
    environment = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-u", "-c", code],
            env=os.environ | environment | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for one in running:
        while one.stdout.readline() not in ("ready\n", ""):
            pass
    running[process].send_signal(signal.SIGTERM)
    ended = end(running, timeout=30)
    assert [code for code, *_ in ended] == [143, 143], ended
    assert all(err.endswith("terminated\n") for *_, err in ended), ended


def test_a_port_that_is_taken_is_named_and_worth_another_try():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        s.listen()
        address = f"localhost:{s.getsockname()[1]}"
        environment = {"JAX_COORDINATOR_ADDRESS": address, "JAX_PROCESS_ID": "0"}
        done = python("hosts.join('on', 20)", environment | {"JAX_NUM_PROCESSES": "2"})
    assert done.returncode == hosts.LOST
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert f"{address}: is in use by another program" in line
    assert "Traceback" not in done.stderr


def test_processes_of_different_configs_are_told_apart(tmp_path, base):
    each = [[], ["--config.optim.gen_lr=1e-4"]]
    ended = run(tmp_path / "run", base, 2, each=each)
    for code, _, err in ended:
        assert code == 2
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert "config: process 0 has " in line and ", process 1 has " in line
    assert not (tmp_path / "run").exists()


def python(code, environment):
    return subprocess.run(
        [sys.executable, "-c", f"from sigah_jax.devices import hosts; {code}"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("process", ["0", "1"])
def test_processes_that_do_not_come_are_waited_for_no_longer_than_allowed(process):
    address = f"localhost:{free_port()}"
    environment = {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": process,
    }
    done = python("hosts.join('on', 3)", environment)
    assert done.returncode == hosts.LOST  # the others may come the next time
    assert f"error: {address}: not all processes of this run were there after 3 s" in done.stderr
    assert "Traceback" not in done.stderr


CLEAN = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_LOCAL_DEVICE_IDS")
SLURM = ("SLURM_NTASKS", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES")
TWO_TASKS = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}


@pytest.mark.parametrize(
    "environment, found",
    [
        ({}, None),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "a:1",
                "JAX_NUM_PROCESSES": "4",
                "JAX_PROCESS_ID": "3",
            },
            {"coordinator_address": "a:1", "num_processes": 4, "process_id": 3},
        ),
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}, {}),
        (TWO_TASKS | {"SLURM_STEP_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "0,1"}, {}),
        # each task has all GPUs of its node, or SLURM has given it one
        (TWO_TASKS | {"SLURM_STEP_NUM_NODES": "2"}, {"local_device_ids": []}),
        (
            TWO_TASKS | {"SLURM_STEP_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "1"},
            {"local_device_ids": []},
        ),
        (TWO_TASKS | {"SLURM_STEP_NUM_NODES": "2", "JAX_LOCAL_DEVICE_IDS": "0"}, {}),
        # the shell of `salloc -n 2` is a step of its own
        (TWO_TASKS | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1"}, None),  # one task of an array
        ({"SLURM_NTASKS": "8"}, None),  # in an allocation, but not started by srun
        ({"TPU_ML_PLATFORM": "JAX"}, {}),
    ],
)
def test_what_the_environment_says(monkeypatch, environment, found):
    others = ("CUDA_VISIBLE_DEVICES", "TPU_ML_PLATFORM", "TPU_SKIP_MDS_QUERY")
    for name in (*CLEAN, *SLURM, *others):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hosts.from_environment() == found


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"JAX_COORDINATOR_ADDRESS": "a"}, "JAX_COORDINATOR_ADDRESS=a: expected host:port"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "first"},
            "JAX_PROCESS_ID=first: expected a whole number",
        ),
    ],
)
def test_nonsense_in_the_environment_is_named(monkeypatch, environment, words):
    for name in CLEAN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=words):
        hosts.from_environment()


def test_on_needs_something_that_says_which_processes_there_are():
    done = python("hosts.join('on', 3)", {"JAX_COORDINATOR_ADDRESS": "localhost:1"})
    assert done.returncode and "config.distributed=on: Number of processes" in done.stderr


def test_one_process_is_its_own_first_and_only():
    assert hosts.first() and hosts.any_of(True) and not hosts.any_of(False)
    assert hosts.in_turn(lambda: 7) == 7
    hosts.check_same("config", "0123456789abcdef")
    np.testing.assert_array_equal(hosts.from_first({"a": np.arange(3)})["a"], [0, 1, 2])
    with pytest.raises(BadInput, match="mine"):
        hosts.in_turn(raise_it)


def raise_it():
    raise BadInput("mine")
