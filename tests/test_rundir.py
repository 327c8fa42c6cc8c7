"""Run directories: their names, their lock, whose config they hold."""

import json
import os
from pathlib import Path

import pytest

from sigah_jax import config
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.run import rundir


def seal_a_checkpoint(workdir):
    (workdir / "checkpoints" / "400").mkdir(parents=True)
    (workdir / "checkpoints" / "400" / rundir.SEAL).write_text("{}")


def test_the_name_follows_from_the_command_line():
    c = config.get_config("bits=32")
    c.seed = 3
    got = rundir.run_directory(c, "mnist", {"seed": 3, "optim.gen_lr": 0.001})
    assert got == Path("runs/mnist/preset=best,bits=32,optim.gen_lr=0.001/seed3")


def test_how_a_run_is_started_and_watched_is_no_part_of_it(tmp_path):
    c = config.get_config("bits=32")
    name, digest = rundir.run_directory(c, "mnist", {}), rundir.config_hash(c)
    rundir.claim(tmp_path / "run", c).close()
    c.distributed, c.sinks, c.profile.steps = "off", ("wandb",), "10:20"
    c.engine, c.data.dir = "accelerator", "/local/1"
    overrides = {"distributed": "off", "sinks": ("wandb",), "profile.steps": "10:20"}
    overrides |= {"engine": "accelerator", "data.dir": "/local/1"}
    assert rundir.run_directory(c, "mnist", overrides) == name
    assert rundir.config_hash(c) == digest
    rundir.claim(tmp_path / "run", c).close()


def test_a_config_from_before_a_field_is_that_of_its_value_then(tmp_path):
    c = config.get_config("bits=32")
    digest = rundir.config_hash(c)
    (tmp_path / "run").mkdir()
    held = c.to_dict()
    del held["data"]["metric"], held["data"]["queries_train"]
    whole.write_json(tmp_path / "run" / "config.json", {"hash": digest, "config": held})
    seal_a_checkpoint(tmp_path / "run")
    rundir.claim(tmp_path / "run", c).close()
    c.data.metric = "cosine"
    assert rundir.config_hash(c) != digest
    with pytest.raises(BadInput, match=r"another config \(data.metric=l2 there\)"):
        rundir.claim(tmp_path / "run", c)


def test_values_that_are_no_file_names_stay_apart():
    c = config.get_config()
    paths = {rundir.run_directory(c, "v", {"data.base": base}) for base in ("a/b", "a_b", "a:b")}
    assert len(paths) == 3
    assert all(len(path.parts) == 4 for path in paths)
    for letter in ("x", "ü", "語", "\udcff"):  # the last is a byte that is not UTF-8
        long = rundir.run_directory(c, "v", {"data.base": 500 * letter})
        assert len(os.fsencode(long.parts[2])) < 255  # the limit of a file name, in bytes


def test_the_same_config_may_come_back_and_another_may_not(tmp_path):
    c = config.get_config()
    rundir.claim(tmp_path / "run", c).close()
    rundir.claim(tmp_path / "run", c).close()
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["hash"] == rundir.config_hash(c) and written["config"]["model"]["bits"] == 64
    seal_a_checkpoint(tmp_path / "run")
    c.optim.gen_lr = 0.5
    assert rundir.config_hash(c) != written["hash"]
    with pytest.raises(BadInput, match=r"another config \(optim.gen_lr=0.004 there\)"):
        rundir.claim(tmp_path / "run", c)


def test_a_directory_belongs_to_nobody_before_the_first_checkpoint(tmp_path):
    c = config.get_config()
    rundir.claim(tmp_path / "run", c).close()
    rundir.claim_data(tmp_path / "run", {"xt": "1f"})
    c.train.anchors = 64
    rundir.claim(tmp_path / "run", c).close()
    rundir.claim_data(tmp_path / "run", {"xt": "2e"})
    held, digest = rundir.read_config(tmp_path / "run")
    assert held.train.anchors == 64 and digest == rundir.config_hash(c)


@pytest.mark.parametrize("left", ["encoder.npz", "refit/checkpoints", "alternation/checkpoints"])
def test_what_a_run_leaves_holds_its_directory_without_its_first_checkpoints(tmp_path, left):
    c = config.get_config()
    rundir.claim(tmp_path, c).close()
    rundir.claim_data(tmp_path, {"xt": "1f"})
    if left == "encoder.npz":
        (tmp_path / left).touch()
    else:
        seal_a_checkpoint(tmp_path / left.partition("/")[0])
    with pytest.raises(BadInput, match="other rows than the data now"):
        rundir.claim_data(tmp_path, {"xt": "2e"})
    c.train.anchors = 64
    with pytest.raises(BadInput, match=r"another config \(train.anchors=256 there\)"):
        rundir.claim(tmp_path, c)


def test_a_directory_in_use_is_refused_until_it_is_free(tmp_path):
    c = config.get_config()
    lock = rundir.claim(tmp_path, c)
    with pytest.raises(BadInput, match="another process is running here"):
        rundir.claim(tmp_path, c)
    lock.close()
    rundir.claim(tmp_path, c).close()


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match=r"no config\.json"):
        rundir.claim(tmp_path, config.get_config())
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    assert not (tmp_path / "config.json").exists()


def test_a_path_that_cannot_be_a_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        rundir.claim(tmp_path / "file" / "run", config.get_config())


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "damaged"),
        ('{"hash": "12', "damaged"),
        ("[]", "damaged"),
        ('{"config": 1}', "is not a run's"),
        ('{"architectures": []}', "is not a run's"),
    ],
)
def test_a_damaged_or_foreign_config_is_named_and_left_alone(tmp_path, text, words):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match=words):
        rundir.claim(tmp_path, config.get_config())
    assert (tmp_path / "config.json").read_text() == text


def test_a_bucket_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="gs:// is not on a disk; mount the bucket"):
        rundir.claim(Path("gs://mine/runs/a"), config.get_config())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["r[1]", "what?", "all*"])
def test_a_path_that_checkpoints_would_take_for_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(BadInput, match=r"one of the letters .* rename the directory"):
        rundir.claim(tmp_path / name / "run", config.get_config())
    assert not (tmp_path / name).exists()


def test_a_run_stays_with_its_rows(tmp_path):
    rundir.claim_data(tmp_path, {"xt": "1f", "xv": "2e"})
    seal_a_checkpoint(tmp_path)
    rundir.claim_data(tmp_path, {"xt": "1f", "xv": "2e"})
    with pytest.raises(BadInput, match="other rows than the data now"):
        rundir.claim_data(tmp_path, {"xt": "1e", "xv": "2e"})
    whole.write_json(tmp_path / "data.json", {"hash": "1f"})  # as versions before wrote it
    with pytest.raises(BadInput, match="begun by another version; train in another --workdir"):
        rundir.claim_data(tmp_path, {"xt": "1f", "xv": "2e"})


def test_what_a_kill_left_of_the_first_file_does_not_block_a_directory(tmp_path):
    for name in ("lock", "config.json.partial-h-1"):
        (tmp_path / name).touch()
    rundir.claim(tmp_path, config.get_config()).close()
    assert {p.name for p in tmp_path.iterdir()} == {"lock", "config.json"}
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.png.partial-h-1").touch()
    rundir.claim(tmp_path, config.get_config()).close()
    assert not list((tmp_path / "plots").iterdir())


@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_a_file_of_the_run_that_is_a_directory_or_damaged_is_one_line(tmp_path, name):
    c, x = config.get_config(), {"xt": "1f"}
    rundir.claim(tmp_path, c).close()
    rundir.claim_data(tmp_path, x)
    seal_a_checkpoint(tmp_path)
    path = tmp_path / name
    text = path.read_text()
    for damaged in ("", text[:9], text.replace('": "', '": "0', 1), None):
        path.unlink()
        path.mkdir() if damaged is None else path.write_text(damaged)
        with pytest.raises(BadInput, match=f"{name}: "):
            rundir.claim(tmp_path, c).close()
            rundir.claim_data(tmp_path, x)


def test_a_name_that_checkpoints_cannot_have_is_refused_before_anything_is_written(tmp_path):
    workdir = tmp_path / os.fsdecode(b"run\xff")
    for use in (lambda: rundir.claim(workdir, None), lambda: rundir.read_config(workdir)):
        with pytest.raises(BadInput, match="not UTF-8, or letters that the locale"):
            use()
    assert not list(tmp_path.iterdir())


def test_a_directory_of_other_files_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds files but no config\.json"):
        rundir.claim(tmp_path, config.get_config())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "lock").write_text("mine too")
    with pytest.raises(BadInput, match=r"holds files but no config\.json"):
        rundir.claim(tmp_path, config.get_config())
    assert (tmp_path / "lock").read_text() == "mine too"
