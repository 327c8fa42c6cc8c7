"""The choice of μ by validation queries."""

import dataclasses
from types import SimpleNamespace

import hashers
import numpy as np
import pytest

from sigah_jax.encoder.hasher import Hasher
from sigah_jax.encoder.refining import Refinement
from sigah_jax.retrieval import metric, metrics, neighbours
from sigah_jax.run import loading
from sigah_jax.training import refinement

D, BITS = 12, 24


@pytest.fixture(scope="module")
def trained():
    """An untrained hasher and its data; (hasher, data, ground truth)."""
    x = hashers.vectors(1000, D)
    data = SimpleNamespace(xt=x[:800], xv=x[800:], xa=None, metric=metric.L2)
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
        assert list(refinement.falls(before, after, 2.0)) == expected
        assert bool(list(refinement.falls(before, after, 1.0))) == (shift < 0)
    assert list(refinement.falls(before, before, 1.0)) == []


def test_a_metric_may_fall_by_as_much_as_another_seed_brings():
    before = {"map": np.linspace(0, 1, 400)}
    for fall, expected in ((0.0019, []), (0.0021, ["map"])):
        assert list(refinement.falls(before, {"map": before["map"] - fall}, 2.0)) == expected


def test_a_given_mu_is_taken_and_what_it_changes_is_told(trained, monkeypatch):
    monkeypatch.setattr(refinement, "falls", None)  # nothing is compared
    (h, _, cb), lines = choose(trained, "0.01", iterations=5)
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
    tried, encode = [], Hasher.encode

    def noted(h, x, out=None, refine=None):
        tried.extend([refine] if refine else [])
        return encode(h, x, out, refine)

    monkeypatch.setattr(Hasher, "encode", noted)
    lost = lambda *_: ["map"] if tried[-1] < least else []  # noqa: E731
    monkeypatch.setattr(refinement, "falls", lost)
    (h, _, cb), lines = choose(trained)
    assert h.refinement.mu == least and len(tried) == len(set(tried)) <= 4
    np.testing.assert_array_equal(cb, h.encode(trained[1].xt))
    assert f"μ={least} changes" in lines[-1]


def test_where_each_mu_costs_something_codes_are_not_refined(trained, monkeypatch):
    monkeypatch.setattr(refinement, "falls", lambda *_: ["map"])
    (h, _, cb), lines = choose(trained)
    np.testing.assert_array_equal(cb, trained[0].encode(trained[1].xt))
    assert h is trained[0] and "none, since each μ lowers a metric" in lines[-1]


def test_validation_rows_judge_where_training_rows_hardly_change(trained, monkeypatch):
    monkeypatch.setattr(refinement, "falls", lambda *_: [])
    (refined, *_), _ = choose(trained)
    share = refined.facts["refinement"]["bits_changed"] / BITS
    monkeypatch.setattr(refinement, "LEAST_CHANGED", 0.99 * share)
    assert choose(trained)[0][0].refinement.mu == refinement.MUS[0]
    monkeypatch.setattr(refinement, "LEAST_CHANGED", 1.01 * share)
    judges = []

    def falls(before, after, chance):  # of training rows none, of validation rows by the least μ
        assert {len(values) for values in (*before.values(), *after.values())} == {200}
        judges.append((tuple(before), chance))
        return ["map"] if len(judges) == 8 else []

    monkeypatch.setattr(refinement, "falls", falls)
    (h, _, cb), lines = choose(trained)
    assert h.refinement.mu == refinement.MUS[1]
    of_all, of_few = (refinement.METRICS, 2.0), (refinement.METRICS_OF_FEW, 1.0)
    assert judges == [*4 * [of_all], *4 * [of_few]]
    told = "μ=0.001 changes too few bits", "μ=0.001 lowers map", "μ=0.002 changes"
    assert all(text in line for text, line in zip(told, lines[-3:], strict=True))
    np.testing.assert_array_equal(cb, h.encode(trained[1].xt))
    changed = np.bitwise_count(cb ^ trained[0].encode(trained[1].xt)).sum(1).mean()
    assert h.facts["refinement"]["bits_changed"] == changed
    assert choose(trained, mu="0.001")[0][0].refinement.mu == 0.001  # by hand it is taken


def test_of_many_training_rows_a_sample_judges(trained, monkeypatch):
    h, data, _ = trained
    monkeypatch.setattr(refinement, "SAMPLE_ROWS", 50)
    monkeypatch.setattr(refinement, "SAMPLE_BITS", 100 * BITS)
    by_query, judged = refinement.by_query, []

    def noted(cq, cb, truth, bits, engine):
        judged.append((cb, truth))
        return by_query(cq, cb, truth, bits, engine)

    monkeypatch.setattr(refinement, "by_query", noted)
    monkeypatch.setattr(refinement, "falls", lambda *_: [])
    (refined, rows, cb), _ = choose(trained)
    np.testing.assert_array_equal(rows, np.linspace(0, 799, 100).astype(int))
    x = data.xt[rows]
    np.testing.assert_array_equal(cb, refined.encode(x))
    for codes, truth in judged:
        assert codes.shape == (100, BITS // 8)
        nearest = ((data.xv[:, None] - x) ** 2).sum(-1).argmin(1)
        np.testing.assert_array_equal(truth[:, 0], nearest)
    np.testing.assert_array_equal(judged[0][0], h.encode(x))
    changed = np.bitwise_count(refined.encode(x) ^ h.encode(x)).sum(1).mean()
    assert refined.facts["refinement"]["bits_changed"] == changed
    monkeypatch.setattr(refinement, "falls", lambda *_: ["map"])
    np.testing.assert_array_equal(choose(trained)[0][2], h.encode(x))


def test_validation_rows_take_no_mu_that_training_rows_refused(trained, monkeypatch):
    judged = []

    def falls(before, after, chance):  # of training rows .02 lowers map
        judged.append(chance)
        return ["map"] if judged == [2.0] else []

    monkeypatch.setattr(refinement, "falls", falls)
    monkeypatch.setattr(refinement, "LEAST_CHANGED", 1.0)
    assert choose(trained)[0][0].refinement.mu == 0.05 and judged == [2.0, 2.0, 2.0, 1.0, 1.0]


def test_validation_queries_that_are_few_or_no_rows_of_the_base_leave_the_greatest_mu(
    trained, monkeypatch
):
    monkeypatch.setattr(refinement, "falls", lambda *_: [])
    monkeypatch.setattr(refinement, "LEAST_CHANGED", 1.0)
    assert choose(trained)[0][0].refinement.mu == refinement.MUS[0]
    few = {"xv": trained[1].xv[: refinement.LEAST_ROWS - 1]}
    for others in ({"xa": trained[1].xt}, {"metric": SimpleNamespace(added=1)}, few):
        data = SimpleNamespace(**vars(trained[1]) | others)
        of = trained[0], data, trained[2][: len(data.xv)]
        assert choose(of)[0][0].refinement.mu == refinement.MUS[-1]


def test_halves_of_the_validation_rows_search_each_other(trained, monkeypatch):
    h, data, _ = trained
    seen = []

    def by_query(cq, cb, truth, bits, engine):
        seen.append((cq, cb, truth))
        return {name: np.zeros(len(cq)) for name in refinement.METRICS}

    monkeypatch.setattr(refinement, "by_query", by_query)
    h = dataclasses.replace(h, refinement=Refinement(0.0, 5))
    log = SimpleNamespace(line=print)
    assert refinement.by_validation_rows((0.01, 0.1), h, data, "cpu", log) == 0.01
    halves = data.xv[:100], data.xv[100:]
    for (cq, cb, truth), (xq, xb) in zip(seen, (halves, halves[::-1]), strict=False):
        np.testing.assert_array_equal(cq, h.encode_queries(xq))
        np.testing.assert_array_equal(cb, h.encode(xb))  # plain, then refined
        np.testing.assert_array_equal(truth[:, 0], ((xq[:, None] - xb) ** 2).sum(-1).argmin(1))
    monkeypatch.setattr(refinement, "falls", lambda *_: ["map"])
    assert refinement.by_validation_rows((0.01, 0.1), h, data, "cpu", log) == 0.1
    np.testing.assert_array_equal(seen[2][1], h.encode(halves[1], refine=0.1))


def test_the_refinement_is_kept_in_the_file_and_obeyed(trained, tmp_path):
    h = dataclasses.replace(trained[0], refinement=Refinement(0.01, 5), query_scale=1.3)
    h.save(tmp_path / "e.npz")
    again, x = loading.load(tmp_path / "e.npz"), trained[1].xv
    assert again.refinement == h.refinement and again.describe()["refine"]["iterations"] == 5
    assert again.query_scale == again.describe()["query_scale"] == 1.3
    np.testing.assert_array_equal(again.encode(x), h.encode(x, refine=0.01))
    np.testing.assert_array_equal(again.encode(x, refine=0), trained[0].encode(x))
    assert (again.encode(x) != again.encode(x, refine=0)).any()


def test_codes_that_are_known_are_not_made_again(trained, monkeypatch):
    h, data, _ = trained
    h = dataclasses.replace(h, refinement=Refinement(0.01, 5))
    whole, asked, encode = h.encode(data.xt), [], Hasher.encode

    def noted(h, x, *more):
        asked.append(len(x))
        return encode(h, x, *more)

    monkeypatch.setattr(Hasher, "encode", noted)
    for rows, known, missing in (
        (np.arange(800), np.arange(0, 800, 3), [533]),
        (np.arange(1, 800, 2), np.arange(0, 800, 3), [267]),  # the last row is not known
        (np.arange(0, 799, 7), np.array([799]), [115]),
        (np.arange(0, 800, 6), np.arange(0, 800, 3), []),
    ):
        packed = refinement.completed(h, data.xt, rows, known, whole[known])
        np.testing.assert_array_equal(packed, whole[rows])
        assert asked == missing
        asked.clear()
