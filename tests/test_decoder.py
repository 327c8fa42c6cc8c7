"""`experiments.decoder`: its measures by hand, and the command on a run."""

import numpy as np
from hashers import run_directory
from scipy.spatial.distance import cdist

from experiments import decoder
from sigah_jax.data import datasets
from sigah_jax.files import whole


def test_energy_distance_by_hand():
    # from (0, 0): 3 and √(3² + 4²) = 5; from (4, 0): 1 and √(1² + 4²); within x 4, within y 4
    x, y = np.float64([[0, 0], [4, 0]]), np.float64([[3, 0], [3, 4]])
    between = (3 + 5 + 1 + 17**0.5) / 4
    np.testing.assert_allclose(decoder.energy_distance(x, y), 2 * between - 4 - 4, rtol=1e-12)


def test_features_of_one_distribution_are_within_the_noise_and_others_are_not():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((400, 4))
    same, noise = (float(v.split()[0]) for v in decoder.alike(z, z))
    assert abs(same - noise) < 1e-12
    moved, _ = (float(v.split()[0]) for v in decoder.alike(z, z + 1))
    assert moved > 0.3 > 10 * abs(noise)


def test_ranking_by_hand():
    # 2,000 rows on a line: row i at i; the query at 0, whose order is right but for two swaps
    xb = np.arange(2000.0)[:, None]
    truth = np.arange(1000)[None]
    assert decoder.ranking(np.zeros((1, 1)), xb, truth) == ["1.000", "1.000", "1.000"]
    xb[[5, 150]] = xb[[150, 5]]  # the 6th nearest comes 151st, out of the first 100
    assert decoder.ranking(np.zeros((1, 1)), xb, truth) == ["1.000", "1.000", "0.900"]
    xb[[7, 1500]] = xb[[1500, 7]]  # row 1500 comes 8th
    assert decoder.ranking(np.zeros((1, 1)), xb, truth)[1:] == ["0.990", "0.800"]


def test_opqs_are_of_all_columns_and_of_8_a_byte():
    assert decoder.opq_keys(64, 784) == ["OPQ8_64,PQ8x8", "OPQ8_784,PQ8x8"]
    assert decoder.opq_keys(64, 64) == ["OPQ8_64,PQ8x8"]
    assert decoder.opq_keys(64, 60) == ["OPQ8_64,PQ8x8"]  # 4 columns of zeros
    assert decoder.opq_keys(128, 96) == ["OPQ16_96,PQ16x8"]
    assert decoder.opq_keys(4, 8) == ["OPQ1_8,PQ1x8"]  # a code takes whole bytes


def test_opq_ranks_far_better_than_chance():
    x = np.random.default_rng(0).standard_normal((2020, 8)).astype(np.float32)
    xb, xq = x[20:], x[:20]
    truth = cdist(xq, xb).argsort(1)
    data = datasets.Dataset(xt=xb, xv=xq, xb=xb, xq=xq, image_shape=(), origin="")
    name, *_, precision, recall = decoder.opq_row("OPQ2_8,PQ2x8", data, truth)
    assert name == "OPQ2_8,PQ2x8"
    assert float(precision) > 0.9 and float(recall) > 0.9  # by chance .5 and .05


def test_a_run_that_is_not_there_is_told_in_one_line(tmp_path, capsys):
    assert decoder.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: has no config.json")


def test_runs_of_other_data_are_refused(tmp_path, capsys):
    run_directory(tmp_path / "a", 16, 6)
    run_directory(tmp_path / "b", 16, 6)
    path = tmp_path / "b" / "config.json"
    held = whole.read_json(path, "")
    held["config"]["data"]["test_queries"] = 999
    whole.write_json(path, held)
    assert decoder.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert f"{tmp_path / 'b'}: of other data" in capsys.readouterr().err
