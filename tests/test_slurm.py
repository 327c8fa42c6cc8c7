"""The array script, on a SLURM of one node that the test starts and stops."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import waiting

from launch import local, slurm, sweep
from sigah_jax.errors import BadInput

ROOT = Path(__file__).parent.parent
MNIST = f"--config={ROOT}/experiments/mnist.py"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
wait_for = partial(waiting.wait_for, secs=120)

CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=2
SchedulerParameters=bf_interval=1,sched_interval=2
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    place = tmp_path / "with a blank"
    place.mkdir()
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running SLURM, in SLURM_CONF while the tests of this file run."""
    if not all(map(shutil.which, PROGRAMS)):
        pytest.skip("SLURM is not installed: apt-get install munge slurmctld slurmd slurm-client")
    if os.geteuid():
        pytest.skip("SLURM's daemons are started by root alone")
    home = tmp_path_factory.mktemp("slurm")
    (home / "state").mkdir()
    (home / "spool").mkdir()
    key = home / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = home / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(host=host, dir=home, ports=free_ports(2), cpus=os.cpu_count()))
    munge = [f"--{what}-file={home}/munge.{what}" for what in ("key", "pid", "log", "seed")]
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={home}/munge.socket", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]
    with (
        pytest.MonkeyPatch.context() as patch,
        (home / "daemons.log").open("w") as log,
        contextlib.ExitStack() as at_the_end,
    ):
        patch.setenv("SLURM_CONF", str(conf))
        for daemon in daemons:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            at_the_end.callback(stop, subprocess.Popen(daemon, **streams))
        wait_for(lambda: "idle" in tell("sinfo", "--noheader", "--format=%T"))
        yield
        tell("scancel", "--user=root")
        wait_for(lambda: not tell("squeue", "--noheader"))


def stop(daemon):
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait(20)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def tell(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip()


def job(name, code):
    """A point whose run is Python code: {done} is its results, {starts} counts its starts."""
    workdir = Path("runs") / "preset=best,bits=16" / f"it's {name}"
    starts = Path(f"{name}.starts")
    code = f"import os, signal, sys, time; open('{starts}', 'a').write('x'); {code}"
    code = code.format(done=f"{name}.done", starts=starts)
    argv = [sys.executable, "-c", code]
    return local.Job(name, argv, Path(f"{workdir}.log"), Path(f"{name}.done"), workdir / "lock")


def starts(name):
    return len(Path(f"{name}.starts").read_text()) if Path(f"{name}.starts").exists() else 0


DONE = "open('{done}', 'w').close(); print('finished')"
SAVES = "signal.signal(15, lambda *_: (print('saved', flush=True), os._exit(143)));"


def submit(jobs, options="--time=10"):
    text = slurm.script(
        "sweep-test", jobs, f"{options} --cpus-per-task=1 --comment='two words'", Path("out"), 2
    )
    return slurm.submit(text, Path("out/sweep.sh"))


def words(array, number):
    path = Path(f"out/{array}_{number}.log")
    return path.read_text() if path.exists() else ""


def test_points_run_break_and_are_left_alone_as_they_should(cluster):
    jobs = {
        0: job("good", DONE),
        2: job("breaks", "print('no luck'); sys.exit(1)"),
        3: job("bad_input", "sys.exit(2)"),
        5: job("once_broken", f"len(open('{{starts}}').read()) < 2 and sys.exit(1); {DONE}"),
        7: job("before", DONE),
    }
    jobs[7].done.touch()
    array = submit(jobs)
    wait_for(lambda: all("point" in words(array, number) for number in jobs))
    assert [starts(j.name) for j in jobs.values()] == [1, 3, 1, 2, 0]
    assert jobs[0].done.exists() and jobs[5].done.exists()
    log = jobs[2].log
    assert f"point 2 (breaks): exit code 1, no luck ({log})" in words(array, 2)
    assert "finished before" in words(array, 7)


def test_at_the_time_limit_a_run_saves_and_its_task_comes_again(cluster):
    # a minute is the least limit, so SLURM's word comes soon; saving may take longer than KillWait
    slowly = SAVES.replace("(print", "(time.sleep(4), print")
    first = f"len(open('{{starts}}').read()) < 2 and ({slowly[:-1]}, time.sleep(50)); {DONE}"
    array = submit({4: job("limited", first)}, "--time=1")
    wait_for(Path("limited.done").exists)
    wait_for(lambda: "exit code 0" in words(array, 4))
    assert starts("limited") == 2
    said = job("limited", "").log.read_text().splitlines()
    assert [line for line in said if "slurmstepd" not in line] == ["saved", "finished"]


def test_a_task_that_is_cancelled_saves_and_does_not_come_again(cluster):
    array = submit({0: job("cancelled", f"{SAVES} open('up', 'w'); time.sleep(60)")})
    wait_for(Path("up").exists)
    tell("scancel", f"{array}_0")
    wait_for(lambda: "saved" in job("cancelled", "").log.read_text())
    wait_for(lambda: not tell("squeue", "--noheader"))
    assert starts("cancelled") == 1


def test_a_second_array_leaves_alone_what_the_first_runs(cluster):
    jobs = {0: job("slow", f"open('up', 'w'); time.sleep(6); {DONE}")}
    first = submit(jobs)
    wait_for(Path("up").exists)
    second = submit(jobs)
    wait_for(lambda: "runs in another sweep" in words(second, 0))
    wait_for(lambda: "exit code 0" in words(first, 0))
    assert starts("slow") == 1


def run_alone(tmp_path, jobs, programs, **environment):
    """Task 0 of the script without SLURM, with these programs (name -> code) in PATH."""
    text = slurm.script("sweep-test", jobs, "", Path("out"), 2)
    place = tmp_path / "bin"
    place.mkdir()
    for name, code in programs.items():
        (place / name).write_text(f"#!/usr/bin/env bash\n{code}\n")
        (place / name).chmod(0o755)
    environment |= {"PATH": f"{place}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "0"}
    return subprocess.run(
        ["bash"], input=text, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("code", [1, 65, 71, 127])  # of flock: data error, ENOLCK, missing
def test_a_task_does_not_run_without_a_lock(tmp_path, code):
    programs = {"flock": f"exit {code}", "srun": "touch started"}
    done = run_alone(tmp_path, {0: job("a", DONE)}, programs)
    assert done.returncode == 2 and not Path("started").exists()
    log = job("a", DONE).log
    assert f"point 0 (a): {log} cannot be locked; it needs a disk with" in done.stdout


@pytest.mark.parametrize("restarts, asks", [("", True), ("99", True), ("100", False)])
def test_a_run_that_never_gets_on_is_not_queued_for_ever(tmp_path, restarts, asks):
    says = r"printf 'Traceback\nOSError: no space\n  File \"x\"\n    f()\n    ^^^\n'"
    programs = {"srun": f'{says} >>"${{1#--output=}}"; exit 143', "scontrol": 'echo "$@"'}
    environment = {"SLURM_ARRAY_JOB_ID": "7"}
    environment |= {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    done = run_alone(tmp_path, {0: job("a", DONE)}, programs, **environment)
    assert done.returncode == 143 and done.stderr == ""
    assert "point 0 (a): exit code 143, OSError: no space (runs/" in done.stdout
    assert ("requeue 7_0\n" in done.stdout) == asks
    assert ("use a longer --time" in done.stdout) != asks


def test_bash_accepts_the_script_and_its_head_says_what_was_asked_for(tmp_path):
    jobs = sweep.plan(sweep.parse([MNIST, "--only=4:7", "--config.data.dir=it's here"]))
    options = "--partition=gpu --gres=gpu:1 --comment='two words'"
    text = slurm.script("sweep-mnist", jobs, options, Path("out"), 2)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    head = [line for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert "#SBATCH --array=4,5,6" in head and f"#SBATCH '--chdir={Path.cwd()}'" in head
    assert "#SBATCH --requeue" in head and "#SBATCH --signal=TERM@60" in head
    assert head[-3:] == [
        "#SBATCH --partition=gpu", "#SBATCH --gres=gpu:1", "#SBATCH '--comment=two words'"
    ]  # fmt: skip


EVIL = "a\ntouch planted\n#"


@pytest.mark.parametrize("name", [EVIL, "a\rb", "a\x00b", "a\u2028b", "a\x1b[2J"])
def test_a_line_break_in_a_name_or_an_option_is_refused(name):
    with pytest.raises(BadInput, match=r"--job-name=a\\.*holds a control character") as e:
        slurm.script(name, {0: job("a", DONE)}, "", Path("out"), 2)
    assert str(e.value).isprintable()
    with pytest.raises(BadInput, match=r"--output=a\\.*holds a control character"):
        slurm.script("a", {0: job("a", DONE)}, "", Path(name), 2)
    with pytest.raises(BadInput, match=r"--comment=a\\.*holds a control character"):
        slurm.script("a", {0: job("a", DONE)}, f"--comment='{name}'", Path("out"), 2)


def test_an_experiment_with_a_line_break_in_its_name_writes_no_script(monkeypatch, capsys):
    file = Path(f"{EVIL}.py")
    shutil.copy(ROOT / "experiments" / "mnist.py", file)
    assert sweep.main([f"--config={file}", "--executor=slurm"]) == 2
    assert "\\ntouch planted\\n#" in capsys.readouterr().err and not Path("runs").exists()


def test_a_line_break_in_a_value_is_part_of_the_value(tmp_path):
    """The commands of points, unlike the head, are quoted by bash, which keeps line ends."""
    evil = job("it's\ntouch planted\n", DONE)
    evil = evil._replace(log=Path("runs/a\ntouch planted\n.log"), done=Path("a\ntouch planted\n"))
    words = tmp_path / "words"
    srun = f'shift 2; printf "%s\\0" "$@" >{words}'
    done = run_alone(tmp_path, {0: evil._replace(argv=["x", EVIL])}, {"srun": srun})
    assert done.returncode == 0 and not Path("planted").exists()
    assert words.read_text() == f"x\0{EVIL}\0"


def test_without_sbatch_the_script_is_written_and_the_remedy_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"no sbatch here; submit out/sweep\.sh on a login node"):
        submit({0: job("a", DONE)})
    assert "--array=0\n" in Path("out/sweep.sh").read_text()
