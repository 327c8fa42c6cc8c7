"""JAX's environment variables, in processes that run a command."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "variable, value, reason",
    [
        ("JAX_NUM_CPU_DEVICES", "x", "JAX refuses this value"),
        ("JAX_ENABLE_X64", "maybe", "JAX refuses this value"),
        ("JAX_PLATFORMS", "nothing", "JAX finds no such device"),
    ],
)
def test_a_value_that_jax_refuses_is_one_line(tmp_path, variable, value, reason):
    argv = [sys.executable, "-m", "sigah_jax.encode", f"--workdir={tmp_path}"]
    done = subprocess.run(
        [*argv, f"--input={tmp_path}/x.npy", f"--output={tmp_path}/c.npy"],
        env=os.environ | {variable: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"error: {variable}={value}: {reason}")
