"""Saving and restoring: what is kept, what is refused, what a damaged file says."""

import shutil
import threading

import jax
import numpy as np
import pytest

from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.run import checkpoints, loading
from sigah_jax.run.rundir import saved_steps
from tests import hashers


def state(value, width=3):
    return {"w": np.full((2, width), value, np.float32), "step": np.int32(value)}


def save(workdir, step, score):
    """Saves a state; a score of None is a save without validation."""
    metrics = None if score is None else {"eval/map": score}
    checkpoints.save(workdir, step, state(step), metrics, "rows", last=False)


def save_all(workdir, scores):
    """Saves a state at steps 1, 2, …"""
    for step, score in enumerate(scores, 1):
        save(workdir, step, score)


def restore(workdir, step, width=3):
    return checkpoints.restore(workdir, step, state(0, width), parallel.replicated())


def test_the_latest_two_and_the_best_are_kept(tmp_path):
    save_all(tmp_path, [0.5, 0.9, 0.6, 0.7, None])
    assert saved_steps(tmp_path) == [2, 4, 5]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]
    assert checkpoints.best_step(tmp_path) == 2


@pytest.mark.parametrize("scores, best", [([0.5, 0.5, 0.5, 0.4, 0.4], 3), ([None, None], None)])
def test_the_latest_of_equals_is_kept_and_best_and_none_without_validation(tmp_path, scores, best):
    save_all(tmp_path, scores)
    assert checkpoints.best_step(tmp_path) == best


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_restored_equals_saved_on_any_number_of_devices(tmp_path, devices):
    sharding = parallel.replicated(jax.devices()[:devices])
    save_all(tmp_path, [0.5, 0.6])
    got = checkpoints.restore(tmp_path, 2, state(0), sharding)
    assert len(got["w"].sharding.device_set) == devices
    np.testing.assert_array_equal(parallel.fetch(got)["w"], state(2)["w"])


def test_fields_are_read_without_the_others(tmp_path):
    made = {"gen": {"a": {"kernel": np.ones((2, 3), np.float32)}}, "opt": (np.zeros(4), None)}
    checkpoints.save(tmp_path, 1, made | {"kappa": np.float32(0.3)}, None, "", last=False)
    got = checkpoints.read(tmp_path, 1, ("gen", "kappa"))
    assert sorted(got) == ["gen", "kappa"] and got["kappa"] == np.float32(0.3)
    kernel = got["gen"]["a"]["kernel"]
    assert type(kernel) is np.ndarray
    np.testing.assert_array_equal(kernel, made["gen"]["a"]["kernel"])


def test_another_shape_is_refused(tmp_path):
    save_all(tmp_path, [0.5])
    with pytest.raises(BadInput, match=r"'w'. is float32\[2,3\] there, float32\[2,5\]") as e:
        restore(tmp_path, 1, width=5)
    assert str(tmp_path) in str(e.value) and "\n" not in str(e.value)


def test_a_missing_step_lists_those_that_exist(tmp_path):
    save_all(tmp_path, [0.5, 0.6])
    with pytest.raises(BadInput, match=r"7: no such checkpoint; there are \[1, 2\]"):
        checkpoints.facts(tmp_path, 7)
    with pytest.raises(BadInput, match=r"=7: no such checkpoint; there are \[1, 2\]"):
        checkpoints.number_of(tmp_path, "7")


def test_any_flipped_bit_and_any_cut_file_is_found(tmp_path):
    save_all(tmp_path, [0.5])
    step = tmp_path / "checkpoints" / "1"
    files = [p for p in step.rglob("*") if p.is_file()]
    assert len(files) > 3
    for path in files:
        whole = path.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            flipped = bytearray(whole)
            flipped[at] ^= 4
            for damaged in (bytes(flipped), whole[: at - 1] if at else b""):
                path.write_bytes(damaged)
                with pytest.raises(BadInput, match=r"damaged \(.*; remove its directory") as e:
                    restore(tmp_path, 1)
                assert str(step) in str(e.value)
        path.write_bytes(whole)
    restore(tmp_path, 1)


@pytest.mark.parametrize("size, looks", [(500_000, True), (40, False), (300, False)])
def test_a_full_disk_is_one_line_and_keeps_what_was_saved(
    tmp_path, full_at, capfd, monkeypatch, size, looks
):
    if not looks:  # for room: others may fill the disk meanwhile
        monkeypatch.setattr(checkpoints, "_check_room", lambda directory, _: None)
    save_all(tmp_path, [0.5])
    before = restore(tmp_path, 1)["w"]
    full_at(size)
    with pytest.raises(BadInput, match=r"checkpoints/2: cannot be saved \(.*\); free space") as e:
        save(tmp_path, 2, 0.6)
    full_at(2**30)
    assert "\n" not in str(e.value)
    assert not looks or not capfd.readouterr().err  # orbax tells of its threads in pages
    assert saved_steps(tmp_path) == [1]
    np.testing.assert_array_equal(restore(tmp_path, 1)["w"], before)
    checkpoints.remove_torn(tmp_path)
    save(tmp_path, 2, 0.6)
    assert saved_steps(tmp_path) == [1, 2]


def test_what_is_not_sealed_is_not_looked_at_and_a_training_removes_it(tmp_path):
    save_all(tmp_path, [0.5, 0.6, 0.4])
    kept = tmp_path / "checkpoints"
    (kept / "3" / "seal.json").unlink()  # as a save or a removal that was killed leaves it
    (kept / "4.partial").mkdir()
    assert saved_steps(tmp_path) == [2]
    assert checkpoints.best_step(tmp_path) == 2 and (kept / "3").exists()
    checkpoints.remove_torn(tmp_path)
    assert [p.name for p in kept.iterdir()] == ["2"]


def test_a_best_checkpoint_that_was_removed_is_missed(tmp_path):
    save_all(tmp_path, [0.9, 0.6, 0.5])
    shutil.rmtree(tmp_path / "checkpoints" / "1")
    with pytest.raises(BadInput, match="checkpoints/1: the best checkpoint was removed"):
        checkpoints.best_step(tmp_path)
    assert checkpoints.number_of(tmp_path, "latest") == 3


def test_a_hasher_is_loaded_while_a_training_saves(tmp_path):
    """Each save removes a checkpoint that a reader may just have chosen."""
    workdir = hashers.run_directory(tmp_path, 16, 8)
    made = checkpoints.restore(
        workdir, 20, hashers.state(hashers.configuration(16), hashers.vectors(400, 8)), None
    )
    stop = threading.Event()

    def train() -> None:
        step = 21
        while not stop.is_set():
            # the best is replaced each time, the latest too
            checkpoints.save(workdir, step, made, {"eval/map": step / 1e6}, "", last=False)
            step += 1

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    try:
        steps = [loading.load(workdir, name).facts["step"] for name in ("best", "latest") * 10]
    finally:
        stop.set()
        thread.join(60)
    assert max(steps) > min(steps)
