"""The choice of μ by validation queries."""

import dataclasses
from types import SimpleNamespace

import hashers
import numpy as np
import pytest

from sigah_jax.encoder.refining import Refinement
from sigah_jax.retrieval import metrics, neighbours
from sigah_jax.run import loading
from sigah_jax.training import refinement

D, BITS = 12, 24


@pytest.fixture(scope="module")
def trained():
    """An untrained hasher and its data; (hasher, data, ground truth)."""
    x = hashers.vectors(900, D)
    data = SimpleNamespace(xt=x[:800], xv=x[800:])
    truth = neighbours.nearest_sets(data.xv, data.xt, metrics.relevance_sizes(800), "cpu")
    return hashers.untrained_for(x, BITS, block_rows=64), data, truth


def choose(trained, mu="auto", iterations=16):
    h, data, truth = trained
    config = hashers.configuration(BITS)
    config.refine.mu, config.refine.iterations = mu, iterations
    lines = []
    log = SimpleNamespace(line=lines.append)
    return refinement.chosen(config, h, data, truth, log), lines


def test_a_metric_falls_if_chance_does_not_explain_it():
    rng = np.random.default_rng(0)
    before = {name: rng.random(400) for name in refinement.METRICS}
    noise = rng.normal(size=400)
    noise -= noise.mean()
    error = noise.std() / 20  # of the mean over 400 queries
    for shift, expected in ((-1.9, []), (-2.1, ["map"]), (1.0, [])):
        after = before | {"map": before["map"] + noise + shift * error}
        assert list(refinement.falls(before, after)) == expected
    assert list(refinement.falls(before, before)) == []


def test_a_given_mu_is_taken_and_what_it_changes_is_told(trained, monkeypatch):
    monkeypatch.setattr(refinement, "falls", None)  # nothing is compared
    (h, cb), lines = choose(trained, "0.01", iterations=5)
    assert h.refinement == Refinement(0.01, 5)
    x, plain = trained[1].xt, trained[0].encode(trained[1].xt)
    facts, z = h.facts["refinement"], h.features(x)
    refined = h.encode(x)
    np.testing.assert_array_equal(cb, refined)
    assert facts["bits_changed"] == np.bitwise_count(plain ^ refined).sum(1).mean() > 0.1
    errors = [((z - h.decode(cb)) ** 2).sum(1).mean() for cb in (plain, refined)]
    np.testing.assert_allclose([facts["error"], facts["error_refined"]], errors, rtol=1e-5)
    assert errors[1] < errors[0] and "μ=0.01 changes" in lines[-1]


@pytest.mark.parametrize("least", refinement.MUS)
def test_the_least_mu_that_costs_nothing_is_chosen(trained, monkeypatch, least):
    tried = []

    def noted(mu, iterations):
        tried.append(mu)
        return Refinement(mu, iterations)

    monkeypatch.setattr(refinement, "Refinement", noted)
    lost = lambda before, after: ["map"] if tried[-1] < least else []  # noqa: E731
    monkeypatch.setattr(refinement, "falls", lost)
    (h, cb), lines = choose(trained)
    assert h.refinement.mu == least and len(tried) <= 3
    np.testing.assert_array_equal(cb, h.encode(trained[1].xt))
    assert f"μ={least} changes" in lines[-1]


def test_where_each_mu_costs_something_codes_are_not_refined(trained, monkeypatch):
    monkeypatch.setattr(refinement, "falls", lambda before, after: ["map"])
    (h, cb), lines = choose(trained)
    np.testing.assert_array_equal(cb, trained[0].encode(trained[1].xt))
    assert h is trained[0] and "none, since each μ lowers a metric" in lines[-1]


def test_training_rows_that_hardly_change_do_not_judge(trained, monkeypatch):
    monkeypatch.setattr(refinement, "falls", lambda before, after: [])
    (refined, _), _ = choose(trained)
    share = refined.facts["refinement"]["bits_changed"] / BITS
    monkeypatch.setattr(refinement, "LEAST_CHANGED", 0.99 * share)
    assert choose(trained)[0][0].refinement.mu == refinement.MUS[0]
    monkeypatch.setattr(refinement, "LEAST_CHANGED", 1.01 * share)
    (cautious, cb), lines = choose(trained)
    assert cautious.refinement.mu == refinement.MUS[-1]
    assert "μ=0.001 changes too few bits" in lines[-2] and "μ=0.1 changes" in lines[-1]
    np.testing.assert_array_equal(cb, cautious.encode(trained[1].xt))
    changed = np.bitwise_count(cb ^ trained[0].encode(trained[1].xt)).sum(1).mean()
    assert cautious.facts["refinement"]["bits_changed"] == changed
    assert choose(trained, mu="0.001")[0][0].refinement.mu == 0.001  # by hand it is taken


def test_the_refinement_is_kept_in_the_file_and_obeyed(trained, tmp_path):
    h = dataclasses.replace(trained[0], refinement=Refinement(0.01, 5))
    h.save(tmp_path / "e.npz")
    again, x = loading.load(tmp_path / "e.npz"), trained[1].xv
    assert again.refinement == h.refinement and again.describe()["refine"]["iterations"] == 5
    np.testing.assert_array_equal(again.encode(x), h.encode(x, refine=0.01))
    np.testing.assert_array_equal(again.encode(x, refine=0), trained[0].encode(x))
    assert (again.encode(x) != again.encode(x, refine=0)).any()
