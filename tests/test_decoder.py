"""`experiments.decoder`: its measures by hand, and the command on a run."""

import dataclasses

import numpy as np
import pytest
from hashers import run_directory, vectors
from matplotlib.axes import Axes
from scipy.spatial.distance import cdist

from experiments import decoder
from sigah_jax.data.datasets import Dataset
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.retrieval import metric
from sigah_jax.run import checkpoints, loading


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


def test_a_run_has_a_row_of_its_error_its_likeness_and_its_ranking(tmp_path):
    workdir = run_directory(tmp_path / "run", 16, 6)
    x = vectors(400, 6)
    data = Dataset(xt=x, xv=x, xb=x[20:], xq=x[:20], image_shape=(), origin="")
    truth = cdist(x[:20], x[20:]).argsort(1)
    name, error, *alike, precision, _, recall = decoder.run_row(workdir, data, truth)
    h = loading.load(workdir)
    z, base = h.features(x[:20]), h.decode(h.encode(x[20:]))
    wanted = ((z - h.decode(h.encode(x[:20]))) ** 2).sum(1).mean()
    assert name == f"{workdir}, 16 bits" and error == f"{wanted:.3f}" and len(alike) == 2
    found = cdist(z, base).argsort(1)[:, :100]
    hits = [np.isin(t[:10], ids).mean() for t, ids in zip(truth, found, strict=True)]
    assert abs(float(recall) - np.mean(hits)) < 0.01 and precision == "1.000"  # 380 of 380


def test_errors_of_the_discriminator_are_those_of_real_and_synthetic_rows_and_are_drawn(tmp_path):
    workdir = run_directory(tmp_path / "run", 16, 6)
    x = vectors(400, 6)
    data = Dataset(xt=x, xv=x, xb=x[50:], xq=x[:50], image_shape=(), origin="")
    real, synthetic = decoder.errors(workdir, data)
    h = loading.load(workdir)
    dis = checkpoints.read(workdir, 20, ("dis",))["dis"]
    for e, z in ((real, h.features(x[:50])), (synthetic, h.decode(h.encode(x[:50])))):
        hidden = z * 6**0.5
        for name in sorted(dis, key=lambda name: (name == "out", name)):
            hidden = hidden @ dis[name]["kernel"] + dis[name]["bias"]
            hidden = hidden if name == "out" else np.maximum(hidden, 0)
        np.testing.assert_allclose(e, ((hidden / 6**0.5 - z) ** 2).sum(1), rtol=1e-4)
    texts = []
    with pytest.MonkeyPatch.context() as m:
        legend = Axes.legend
        m.setattr(Axes, "legend", lambda ax, title: texts.append(title) or legend(ax, title=title))
        found = {"apart": (np.zeros(9), np.ones(9)), "equal": (real, real)}
        decoder.plot(found, tmp_path / "plot.png")
    assert texts == ["area under the curve 1.00", "area under the curve 0.50"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_discriminator_that_was_not_trained_is_not_drawn(tmp_path):
    x, workdir = vectors(60, 6), run_directory(tmp_path / "run", 16, 6)
    data = Dataset(xt=x, xv=x, xb=x[9:], xq=x[:9], image_shape=(), origin="")
    product = dataclasses.replace(data, metric=metric.of("ip", 1.0))
    with pytest.raises(BadInput, match="needs queries that could be base rows"):
        decoder.errors(workdir, product)
    path = workdir / "config.json"
    held = whole.read_json(path, "")
    held["config"]["loss"]["adversary"] = 0.0
    whole.write_json(path, held)
    with pytest.raises(BadInput, match="trained without an adversary; leave it out"):
        decoder.errors(workdir, data)


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


def test_a_plot_with_another_ending_is_refused_before_anything_is_read(tmp_path, capsys):
    assert decoder.main([str(tmp_path / "none"), "--plot=errors.pdf"]) == 2
    assert "--plot=errors.pdf: the plot is a .png file" in capsys.readouterr().err
