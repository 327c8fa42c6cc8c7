"""What a run leaves at its end."""

import json
import subprocess

import hashers
import numpy as np
import pytest

from sigah_jax.data.datasets import Dataset
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.run import logs
from sigah_jax.training import results

D, BITS = 16, 12


@pytest.fixture(scope="module")
def data():
    x = hashers.vectors(700, D)
    return Dataset(x[:300], x[300:350], x[350:680], x[680:], (4, 4), "made here")


def configuration():
    c = hashers.configuration(BITS)
    c.eval.baselines = ("lsh", "pca_sign")
    return c


def write(tmp_path, data, c, rows=()):
    h = hashers.untrained_for(data.xt, BITS)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path, pictures = tmp_path / "results.json", tmp_path / "plots"
    with logs.Log(tmp_path / "log.txt") as log:
        results.write(c, tmp_path, tmp_path / "cache", log, data, h, {"load": 1.5}, path, pictures)
    return results.read(path), {p.name for p in pictures.iterdir()}


def test_metrics_facts_and_pictures_are_written(tmp_path, data):
    held, pictures = write(tmp_path, data, configuration(), [{"step": 5, "train/loss_gen": 1.0}])
    methods = {"sigah", "sigah_both", "lsh", "pca_sign"}
    real = {"sigah_projection", "sigah_synthetic", "sigah_stages"}
    assert set(held["metrics"]) == methods | real and set(held["pr_curves"]) == methods
    for name in real:
        found = held["metrics"][name]
        assert 0 < found["reranked"] < 1 and found["encode_secs"] >= 0 and "area_rp" not in found
    assert 0 < held["metrics"]["sigah"]["map"] < 1
    assert held["rows"] == {"base": 330, "training": 300, "queries": 20}
    assert held["seconds"].keys() == {"load", "evaluate", *methods}
    assert held["data"] == "made here" and held["bits"] == BITS and held["peak_rss_bytes"] > 1e7
    assert pictures == {"training.png", "precision_recall.png", "synthetic.png"}
    assert "SiGAH" in (tmp_path / "log.txt").read_text()


def test_without_rows_or_images_fewer_pictures_are_drawn(tmp_path, data):
    flat = Dataset(data.xt, data.xv, data.xb, data.xq, (), "made here")
    _, pictures = write(tmp_path, flat, configuration())
    assert pictures == {"precision_recall.png"}


def test_a_baseline_without_so_many_bits_has_no_metrics(tmp_path, data):
    narrow = Dataset(*(x[:, :8] for x in (data.xt, data.xv, data.xb, data.xq)), (), "made here")
    c = configuration()
    held, _ = write(tmp_path, narrow, c)
    assert held["metrics"]["pca_sign"] == {} and "pca_sign" not in held["pr_curves"]


def test_a_radius_that_retrieves_nothing_is_null():
    assert results.curve_of(([np.nan, 0.5], [0.0, 1.0])) == [[None, 0.5], [0.0, 1.0]]


def test_a_package_inside_another_repository_does_not_take_its_commit(tmp_path, monkeypatch):
    path = tmp_path / "site-packages" / "results.py"
    path.parent.mkdir()
    path.touch()
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(results, "__file__", str(path))
    assert results.commit() == "unknown"
    subprocess.run([*git, "add", path], check=True)
    assert len(results.commit()) == 40


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "results.json"
    whole.write_json(path, {"bits": 3})
    with pytest.raises(BadInput, match=r"results.json: damaged \(it has no metrics\); remove it"):
        results.read(path)
