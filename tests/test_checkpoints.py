"""Saving and restoring: what is kept, what is refused, what a damaged file says."""

import contextlib
import time

import jax
import numpy as np
import pytest

from sigah_jax import checkpoints, parallel
from sigah_jax.errors import BadInput


def state(value, width=3):
    return {"w": np.full((2, width), value, np.float32), "step": np.int32(value)}


@contextlib.contextmanager
def save(tmp_path, scores):
    """Saves a state at steps 1, 2, …; a score of None is a save without validation."""
    with checkpoints.open_manager(tmp_path, read_only=False) as manager:
        for step, score in enumerate(scores, 1):
            metrics = None if score is None else {"eval/map": score}
            checkpoints.save(manager, step, state(step), [4, 3], metrics)
        yield manager


def damage(directory):
    for path in directory.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_latest_two_and_the_best_are_kept(tmp_path):
    with save(tmp_path, [0.5, 0.9, 0.6, 0.7, None]) as manager:
        assert sorted(manager.all_steps()) == [2, 4, 5]
        assert checkpoints.best_step(manager) == 2


def test_the_best_is_kept_through_a_restart(tmp_path):
    with save(tmp_path, [0.9, None]):
        pass
    with checkpoints.open_manager(tmp_path, read_only=False) as manager:
        for step, score in ((3, 0.6), (4, 0.7), (5, 0.5)):
            checkpoints.save(manager, step, state(step), [4, 3], {"eval/map": score})
        assert sorted(manager.all_steps()) == [1, 4, 5]
        assert checkpoints.best_step(manager) == 1


@pytest.mark.parametrize("scores, best", [([0.5, 0.5, 0.5, 0.4, 0.4], 3), ([None, None], None)])
def test_the_latest_of_equals_is_kept_and_best_and_none_without_validation(tmp_path, scores, best):
    with save(tmp_path, scores) as manager:
        assert checkpoints.best_step(manager) == best


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_restored_equals_saved_on_any_number_of_devices(tmp_path, devices):
    sharding = parallel.replicated(jax.devices()[:devices])
    with save(tmp_path, [0.5, 0.6]) as manager:
        got = checkpoints.restore(manager, 2, state(0), sharding)
        assert checkpoints.facts(manager, 2)["shape"] == [4, 3]
    assert len(got["w"].sharding.device_set) == devices
    np.testing.assert_array_equal(parallel.fetch(got)["w"], state(2)["w"])


def test_another_shape_is_refused(tmp_path):
    with (
        save(tmp_path, [0.5]) as manager,
        pytest.raises(BadInput, match=r"'w'. is float32\[2,3\] there, float32\[2,5\]") as e,
    ):
        checkpoints.restore(manager, 1, state(0, width=5), parallel.replicated())
    assert str(tmp_path) in str(e.value) and "\n" not in str(e.value)


def test_a_missing_step_lists_those_that_exist(tmp_path):
    with (
        save(tmp_path, [0.5, 0.6]) as manager,
        pytest.raises(BadInput, match=r"7: no such checkpoint; there are \[1, 2\]"),
    ):
        checkpoints.facts(manager, 7)


def test_a_damaged_checkpoint_is_named(tmp_path):
    with save(tmp_path, [0.5]):
        pass
    damage(tmp_path / "checkpoints" / "1" / "state")
    with (
        checkpoints.open_manager(tmp_path, read_only=False) as manager,
        pytest.raises(BadInput, match="damaged"),
    ):
        checkpoints.restore(manager, 1, state(0), parallel.replicated())


def test_a_reader_leaves_an_unfinished_save_alone_and_a_trainer_removes_it(tmp_path):
    with save(tmp_path, [0.5]):
        pass
    unfinished = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    with checkpoints.open_manager(tmp_path, read_only=True) as manager:
        assert list(manager.all_steps()) == [1] and unfinished.exists()
    with checkpoints.open_manager(tmp_path, read_only=False) as manager:
        deadline = time.monotonic() + 10  # orbax removes it in a thread
        while unfinished.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(manager.all_steps()) == [1] and not unfinished.exists()
