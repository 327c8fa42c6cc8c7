"""The script for TPU pods: what it would do, what it refuses, and a host that stands in."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLAGS = ["--config=experiments/deep1m.py:bits=32", "--workdir=/mnt/runs/x"]


SCRIPT = ["bash", str(ROOT / "launch" / "tpu_pod.sh")]


def run(*argv):
    command = [*SCRIPT, "--dry_run", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_a_dry_run_prints_the_commands_for_every_host():
    done = run("pod", "us-central2-b", *FLAGS, "--config.data.dir=/it's here")
    assert done.returncode == 0, done.stderr
    copy, install, train, follow = map(shlex.split, done.stdout.splitlines())
    for command, verb in ((copy, "scp"), (install, "ssh"), (train, "ssh"), (follow, "ssh")):
        assert command[:5] == ["gcloud", "compute", "tpus", "tpu-vm", verb]
        assert "--zone=us-central2-b" in command and "--worker=all" in command
    assert install[5] == train[5] == "pod" and copy[6] == "pod:sigah.tar.gz"
    assert not Path(copy[5]).exists()  # taken away again
    there = [command[-1].removeprefix("--command=") for command in (install, train, follow)]
    for line in there:
        subprocess.run(["bash", "-n"], input=line, text=True, check=True)
    words = shlex.split(there[1])
    at = words.index("sigah_jax.main")
    assert words[at + 1 : at + 4] == [*FLAGS, "--config.data.dir=/it's here"]


@pytest.mark.parametrize("verb", ["follow", "stop"])
def test_following_and_stopping_install_nothing(verb):
    (line,) = run("pod", "us-central2-b", verb).stdout.splitlines()
    command = shlex.split(line)[-1].removeprefix("--command=")
    subprocess.run(["bash", "-n"], input=command, text=True, check=True)
    assert ("pkill -TERM" in command) == (verb == "stop") and "uv" not in command


@pytest.mark.parametrize(
    "argv",
    [[], ["pod", "zone"], ["pod", "zone", FLAGS[0]], ["pod", "zone", "halt"], ["pod", "stop"]],
)
def test_what_is_missing_is_said(argv):
    done = run(*argv)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "--workdir=" in done.stderr


STAND_INS = {
    # the one host of this pod is the home directory
    "bin/gcloud": """case $4 in
scp) cp "$5" ~/"${6#*:}" ;;
ssh) command=${@: -1}; cd && exec bash -c "${command#--command=}" ;;
esac""",
    "bin/python3": "",
    ".local/bin/uv": "",
    "sigah/.venv/bin/python": """trap 'echo saved; exit 143' TERM
echo "started with ${@: -1}"
[ "${@: -1}" = --workdir=/short ] && exit 3
for ((i = 0; i < 600; i++)); do sleep 0.1; done""",
}


@pytest.fixture
def host(tmp_path, monkeypatch):
    """The home directory of a host, on which the script works by a `gcloud` that stands in."""
    for name, code in STAND_INS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{code}\n")
        path.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    yield tmp_path
    pid = tmp_path / "sigah" / "run.pid"
    there("stop") if pid.exists() else None


def there(*argv):
    command = [*SCRIPT, "pod", "zone", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_what_the_program_says_and_its_exit_code_come_back(host):
    done = there(FLAGS[0], "--workdir=/short")
    assert (done.returncode, done.stdout) == (3, "started with --workdir=/short\n"), done.stderr
    assert there("follow").returncode == 3
    assert there("stop").stdout == "nothing runs here\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_run_outlives_its_terminal_and_saves_when_it_is_told_to_stop(host, number):
    terminal = subprocess.Popen(
        [*SCRIPT, "pod", "zone", *FLAGS], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert terminal.stdout.readline() == "started with --workdir=/mnt/runs/x\n"
    os.killpg(terminal.pid, number)  # Ctrl-C, or a lost connection
    assert terminal.wait(20) != 0
    time.sleep(0.3)
    assert "saved" not in (host / "sigah" / "run.log").read_text()
    again = there(*FLAGS)
    assert again.returncode == 2 and "error: a run is there; give follow or stop" in again.stderr
    stopped = there("stop")
    assert stopped.returncode == 0 and stopped.stdout.endswith("saved\n")
    followed = there("follow")
    assert followed.returncode == 143
    assert followed.stdout == "started with --workdir=/mnt/runs/x\nsaved\n"
