"""What can be watched of a run: sinks, a trace, memory, the compilation cache."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import sets
from tensorboardX.proto import event_pb2

from sigah_jax import config
from sigah_jax.run import watching

ROWS = [{"step": 5, "train/loss_gen": 2.5}, {"step": 10, "train/loss_gen": 1.5, "eval/map": 0.5}]


def watched(*sinks):
    c = config.get_config()
    c.sinks = sinks
    return c


def scalars(directory):
    """name -> [(step, value)] of all event files, in the order in which they were written."""
    found = {}
    for path in sorted(directory.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        raw = path.read_bytes()
        while raw:
            # a record: length u64, its checksum u32, the event, its checksum u32
            size = int.from_bytes(raw[:8], "little")
            event = event_pb2.Event.FromString(raw[12 : 12 + size])
            raw = raw[16 + size :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_gets_every_number_at_its_step_and_goes_on(tmp_path):
    with watching.open_sinks(watched("tensorboard"), tmp_path, 0) as send:
        send(ROWS[0])
    with watching.open_sinks(watched("tensorboard"), tmp_path, 5) as send:
        send(ROWS[1])
    found = scalars(tmp_path / "tensorboard")
    assert found["train/loss_gen"] == [(5, 2.5), (10, 1.5)] and found["eval/map"] == [(10, 0.5)]


def test_wandb_gets_rows_and_a_resumed_run_is_the_same_one(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with watching.open_sinks(watched("wandb"), tmp_path, 0) as send:
        send(ROWS[0])
    (first,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60  # W&B's own process writes it, late on a busy machine
    while b"train/loss_gen" not in first.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with watching.open_sinks(watched("wandb"), tmp_path, 5) as send:
        send(ROWS[1])
    names = {path.name for path in (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")}
    assert names == {first.name}
    wandb.teardown()  # ends its process


def test_without_sinks_nothing_is_written(tmp_path):
    with (
        watching.open_sinks(watched(), tmp_path, 0) as send,
        watching.profiling(watched(), tmp_path) as profile,
    ):
        send(ROWS[0])
        profile(0, 10)
        profile(10, 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "steps, traced",
    [
        ("1:10", [1, 2]),  # calls of 5 steps: 1 to 5 and 6 to 10
        ("3:4", [1]),
        ("5:6", [1, 2]),
        ("10:99", [2, 3, 4]),  # training ends before
        ("21:30", []),  # behind the end
    ],
)
def test_the_trace_holds_the_calls_of_the_steps_from_their_start_to_their_end(
    tmp_path, monkeypatch, steps, traced
):
    c, on, begun, ended = watched(), [], [], []
    monkeypatch.setattr(watching.jax.profiler, "start_trace", on.append)
    monkeypatch.setattr(watching.jax.profiler, "stop_trace", on.clear)
    c.profile.steps = steps
    with watching.profiling(c, tmp_path) as profile:
        for number in range(1, 6):  # a call is given before the one before is finished
            if number < 5:
                profile(5 * max(0, number - 2), 5 * number)
                begun += [number] if on else []
            if number > 1:
                ended += [number - 1] if on else []
                profile(5 * (number - 1), 5 * min(number, 4))
    assert [call for call in begun if call in ended] == traced and on == []


def test_memory_is_that_of_the_fullest_device(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    devices = [Device({"peak_bytes_in_use": 5}), Device({"peak_bytes_in_use": 7}), Device(None)]
    monkeypatch.setattr(watching.parallel, "local_devices", lambda: devices)
    assert watching.memory() == {"memory/peak_bytes": 7}
    monkeypatch.setattr(watching.parallel, "local_devices", lambda: devices[2:])
    assert watching.memory() == {}  # a CPU does not know


def test_a_watched_run_leaves_its_trace_events_and_compiled_functions(tmp_path):
    np.save(tmp_path / "base.npy", sets.rows(1000, 20, 12))
    fields = {
        "data.base": tmp_path / "base.npy",
        "data.test_queries": 50,
        "data.val_queries": 50,
        "train.steps": 20,
        "train.steps_per_call": 10,
        "train.anchors": 16,
        "train.graph_neighbours": 8,
        "eval.every_steps": 20,
        "eval.baselines": "()",
        "model.hash_widths": "(32,)",
        "model.dis_widths": "(16,)",
        "model.decoder": "linear",
        "sinks": "tensorboard",
        "profile.steps": "10:10",
    }
    command = [sys.executable, "-m", "sigah_jax.main", "--config=experiments/vectors.py:bits=24"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
    }
    run = tmp_path / "run"
    done = subprocess.run(
        [*command, f"--workdir={run}"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (trace,) = (run / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = scalars(run / "tensorboard")
    sent = {}
    for row in rows:
        for name in set(row) - {"step"}:
            known = re.sub(r"[^\w/-]", "_", name)  # so TensorBoard names recall@10
            sent.setdefault(known, []).append((row["step"], np.float32(row[name])))
    assert found == sent
    assert {"train/loss_gen", "eval/map", "time/examples_per_sec"} <= set(found)
    assert len(list((tmp_path / "compiled").glob("jit_*-cache"))) > 5
