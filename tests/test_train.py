"""The training loop: the devices have the next steps before the losses of a call are read."""

import math
import os
import signal

import jax
import pytest
import sets

import sigah_jax
from sigah_jax import fitting
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput, NonFinite
from sigah_jax.run import logs, rundir
from sigah_jax.training import step, train

SHORT = {
    "data.val_queries": 50,
    "train.steps": 60,
    "train.steps_per_call": 10,
    "train.anchors": 16,
    "train.graph_neighbours": 8,
    "eval.every_steps": 40,
    "model.hash_widths": (32,),
    "model.dis_widths": (16,),
    "model.decoder": "linear",  # compiled in less time
    "refit.share": 0.0,
    "refine.iterations": 0,
}


def fit(workdir, monkeypatch, on_call=lambda number, infos: infos, **changes):
    """Trains; what the loop did, in order.

    Args:
        on_call: `(number of a call from 1 on, its infos) -> infos`, as it is given to the devices.
    """
    events, mapped_steps, check = [], train.mapped_steps, train.check_finite_losses

    def make(*args):
        steps, given = mapped_steps(*args), []

        def run(*args):
            given.append(True)
            events.append(f"given {len(given)}")
            state, infos = steps(*args)
            return state, on_call(len(given), infos)

        return run

    def read(infos, done, saved):
        events.append(f"read {done // 10 + 1}")
        check(infos, done, saved)

    with monkeypatch.context() as m:
        m.setattr(train, "mapped_steps", make)
        m.setattr(train, "check_finite_losses", read)
        fitting.fit(sets.rows(1000, 20, 12), 24, workdir, SHORT | changes)
    return events


def test_the_next_call_is_given_before_a_call_is_read_but_for_validation(tmp_path, monkeypatch):
    events = fit(tmp_path, monkeypatch)
    # the state after call 4 is validated and saved, that after call 6 is the last
    expected = "given 1, given 2, read 1, given 3, read 2, given 4, read 3, read 4"
    assert events == f"{expected}, given 5, given 6, read 5, read 6".split(", ")
    rows = logs.read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert [row["step"] for row in rows if "eval/map" in row] == [40, 60]
    assert ["time/examples_per_sec" in row for row in rows] == [False] + 5 * [True]


@pytest.mark.parametrize("number", [2, 4])  # read a call late, and before validation
def test_a_loss_that_is_not_finite_is_named_with_the_steps_of_its_call(
    tmp_path, monkeypatch, number
):
    def spoil(call, infos):
        return jax.tree.map(lambda a: a * float("nan"), infos) if call == number else infos

    steps = f"{10 * number - 9} (of {10 * number - 9} to {10 * number})"
    with pytest.raises(NonFinite) as e:
        fit(tmp_path, monkeypatch, spoil)
    assert f"not finite at step {steps}; there is no checkpoint yet" in str(e.value)
    rows = logs.read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(10, 10 * number, 10))


def terminate(call, infos):
    """SIGTERM while the devices have the third call; `on_call` of `fit`."""
    if call == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return infos


@pytest.mark.optimised
def test_the_devices_resume_what_the_host_began(tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    with pytest.raises(train.Terminated):
        fit(stopped, monkeypatch, terminate, **{"train.gather": "host"})
    fit(stopped, monkeypatch, **{"train.gather": "devices"})
    fit(whole, monkeypatch)
    assert outcome(stopped) == outcome(whole)


def test_sigterm_saves_the_steps_that_the_devices_have_and_the_same_call_resumes(
    tmp_path, monkeypatch
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    with pytest.raises(train.Terminated):
        fit(stopped, monkeypatch, terminate)
    assert rundir.saved_steps(stopped) == [30]
    assert [row["step"] for row in logs.read_rows(stopped / "metrics.jsonl")] == [10, 20, 30]
    assert fit(stopped, monkeypatch)[0] == "given 1" and len(fit(whole, monkeypatch)) == 12
    assert outcome(stopped) == outcome(whole)


@pytest.mark.parametrize(("free", "gathered"), [(math.inf, False), (2, False), (1.99, True)])
def test_the_host_gathers_if_all_rows_take_more_than_half_of_a_device(
    tmp_path, monkeypatch, free, gathered
):
    size, seen, make = 950 * 20 * 4, [], step.make_train_steps
    monkeypatch.setattr(parallel, "free_memory", lambda devices: free * size)
    monkeypatch.setattr(step, "make_train_steps", lambda *a: seen.append(a[-1]) or make(*a))
    fit(tmp_path, monkeypatch)
    assert seen == [gathered]
    assert ("the host gathers the rows" in (tmp_path / "log.txt").read_text()) == gathered


@pytest.mark.optimised
def test_a_run_is_the_same_whoever_gathers_its_rows(tmp_path, monkeypatch):
    by = {gather: tmp_path / gather for gather in ("devices", "host")}
    stages = {"refine.iterations": 4, "refine.mu": "0.1", "refine.share": 0.5}
    for gather, workdir in by.items():
        fit(workdir, monkeypatch, **stages, **{"train.gather": gather})
    assert outcome(by["host"]) == outcome(by["devices"])


def test_rows_that_no_device_can_hold_are_a_line_that_names_a_field(tmp_path, monkeypatch):
    def fail(tree, devices=None):
        Failed().addressable_data(0)

    monkeypatch.setattr(parallel, "replicate", fail)
    with pytest.raises(BadInput, match=r"9 bytes\.\); give --config\.train\.gather=host$"):
        fit(tmp_path, monkeypatch)
    fit(tmp_path, monkeypatch, **{"train.gather": "host"})


def outcome(workdir):
    """The rows of a run but for its speed, and the bytes of its parameters."""
    timeless = lambda row: {k: v for k, v in row.items() if not k.startswith("time/")}  # noqa: E731
    rows = [timeless(row) for row in logs.read_rows(workdir / "metrics.jsonl")]
    return rows, [a.tobytes() for a in jax.tree.leaves(sigah_jax.load(workdir).params)]


class Failed:
    """A result that the device had no memory for, as JAX says once it is read."""

    def addressable_data(self, _):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


@pytest.mark.parametrize("when", ["given", "read"])
def test_memory_that_runs_out_in_a_call_is_a_line_that_names_a_field(tmp_path, monkeypatch, when):
    def fail(call, infos):
        return Failed().addressable_data(0) if when == "given" else {"train/loss_gen": Failed()}

    with pytest.raises(BadInput, match=r"9 bytes\.\); lower config\.train\.anchors$"):
        fit(tmp_path, monkeypatch, fail)
