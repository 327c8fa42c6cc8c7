"""The script for TPU pods: what it would do, and what it refuses."""

import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLAGS = ["--config=experiments/deep1m.py:bits=32", "--workdir=/mnt/runs/x"]


def run(*argv):
    command = ["bash", str(ROOT / "launch" / "tpu_pod.sh"), "--dry_run", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_dry_run_prints_the_commands_for_every_host():
    done = run("pod", "us-central2-b", *FLAGS, "--config.data.dir=/it's here")
    assert done.returncode == 0, done.stderr
    copy, install, train = map(shlex.split, done.stdout.splitlines())
    for command, verb in ((copy, "scp"), (install, "ssh"), (train, "ssh")):
        assert command[:5] == ["gcloud", "compute", "tpus", "tpu-vm", verb]
        assert "--zone=us-central2-b" in command and "--worker=all" in command
    assert install[5] == train[5] == "pod" and copy[6] == "pod:sigah.tar.gz"
    assert not Path(copy[5]).exists()  # taken away again
    there = [command[-1].removeprefix("--command=") for command in (install, train)]
    for line in there:
        subprocess.run(["bash", "-n"], input=line, text=True, check=True)
    assert shlex.split(there[1])[-4:] == ["sigah_jax.main", *FLAGS, "--config.data.dir=/it's here"]


@pytest.mark.parametrize("argv", [[], ["pod", "zone"], ["pod", "zone", FLAGS[0]]])
def test_what_is_missing_is_said(argv):
    done = run(*argv)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "--workdir=" in done.stderr
