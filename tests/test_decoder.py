"""`experiments.decoder`: its measures by hand and against scipy, and the command on a run."""

import numpy as np
from hashers import run_directory
from scipy.spatial.distance import cdist

from experiments import decoder


def test_energy_distance_against_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)), rng.standard_normal((50, 3)) + 0.5
    wanted = 2 * cdist(x, y).mean() - cdist(x, x).sum() / (40 * 39) - cdist(y, y).sum() / (50 * 49)
    np.testing.assert_allclose(decoder.energy_distance(x, y), wanted, rtol=1e-7)


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


def test_a_run_that_is_not_there_is_told_in_one_line(tmp_path, capsys):
    assert decoder.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no config.json")


def test_runs_of_other_data_are_refused(tmp_path, capsys):
    run_directory(tmp_path / "a", 16, 6)
    run_directory(tmp_path / "b", 16, 6)
    path = tmp_path / "b" / "config.json"
    path.write_text(path.read_text().replace('"test_queries": 1000', '"test_queries": 999'))
    assert decoder.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert f"{tmp_path / 'b'}: of other data" in capsys.readouterr().err
