"""Whether rows are like those of a training: figures by hand, and what is advised."""

import dataclasses

import hashers
import numpy as np
import pytest

from sigah_jax.encoder import drift, refining
from sigah_jax.run import loading

D, BITS = 20, 30


@pytest.fixture(scope="module", params=[4096, 8])
def h(request):
    """Standardised for 400 rows, of which all 20 directions are kept, or 8."""
    x = hashers.vectors(400, D)
    h = hashers.untrained_for(x, BITS, input_dims=request.param)
    return dataclasses.replace(h, refinement=refining.Refinement(0.05))


def test_figures_are_those_of_their_definitions(h):
    x = hashers.vectors(150, D, 1)
    found = drift.figures(h, x)
    training = hashers.vectors(400, D).astype(float)
    mean, s2 = training.mean(0), training.var(0).sum()
    z, b = h.features(x).astype(float), np.unpackbits(h.encode(x), axis=1, count=BITS)
    squared = ((x - mean) ** 2).sum(1) / s2
    error = ((z - h.decode(h.encode(x))) ** 2).sum(1)
    # what a code loses of a row, in the units of the vectors
    r = ((x - h.synthesise(h.encode(x))) ** 2).sum(1) / s2
    limit = np.sort(r)[147] * 0.49 + np.sort(r)[148] * 0.51  # .99 of 149 steps is 147.51
    assert found.rows == 150 and found.far == 0
    for value, wanted in (
        (found.error, error.mean()),
        (found.outside, (squared - (z**2).sum(1)).mean()),
        (found.spread, squared.mean()),
        (found.shift, np.linalg.norm(z.mean(0))),
        (found.lost, r.mean() / (found.outside + ((z - z.mean(0)) ** 2).sum(1).mean())),
        (found.imbalance, np.mean([abs((b[:, k] == 1).mean() - 0.5) * 2 for k in range(BITS)])),
        (found.refined, np.mean(b != np.unpackbits(h.encode(x, refine=0), axis=1, count=BITS))),
        (found.limit, limit),
    ):
        assert value == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    assert (found.outside > 0.1) == (h.features_kept == 8) and found.refined > 0
    of_training = drift.figures(h, training)
    assert of_training.spread == pytest.approx(1, rel=1e-4) and of_training.shift < 1e-4


def test_rows_far_beyond_the_limit_of_others_are_counted_and_left_out_of_what_is_lost(h):
    x = hashers.vectors(150, D, 1)
    held_out = drift.figures(h, x)
    mixed = x.copy()
    mixed[::10] = 7 + 30 * (x[::10] - 7)
    found = drift.figures(h, mixed, held_out)
    assert found.far == 0.1
    others = drift.figures(h, np.delete(x, np.arange(0, 150, 10), axis=0), held_out)
    assert others.far == 0 and found.lost == pytest.approx(others.lost)
    # where most are far, what all lose
    mixed[: 150 // 2] = mixed[0] + np.arange(75)[:, None]
    found, alone = drift.figures(h, mixed, held_out), drift.figures(h, mixed)
    assert found.far > 0.5 and alone.far == 0 and found.lost == alone.lost


def test_a_hasher_keeps_the_figures_of_its_held_out_rows(h, tmp_path):
    assert drift.reference(h) is None
    found = drift.figures(h, hashers.vectors(150, D, 1))
    dataclasses.replace(h, facts={"reference": found._asdict()}).save(tmp_path / "h.npz")
    assert drift.reference(loading.load(tmp_path / "h.npz")) == found
    of_equal_rows = found._replace(lost=np.inf)._asdict()
    assert drift.reference(dataclasses.replace(h, facts={"reference": of_equal_rows})) is None


def test_of_equal_rows_codes_lose_a_share_of_the_variance_of_the_training(h):
    for row in hashers.vectors(3, D, 1):
        found = drift.figures(h, np.repeat(row[None], 100, axis=0))
        alone = drift.figures(h, np.stack([row, row]))
        assert found.lost == pytest.approx(alone.lost)
        r = alone.error + alone.outside
        variance = alone.outside if alone.outside > drift.EQUAL else 1
        assert found.lost == pytest.approx(r / variance)


def test_recall_is_of_rows_that_codes_find_among_so_many():
    x = hashers.vectors(700, D)
    h, xq, xb = hashers.fitted(x[200:], 64), x[:200], x[200:]
    found = drift.recall_by_rows(h, xq, xb, h.encode(xb), "cpu")
    assert list(found) == ["100", "316"]
    rows = np.linspace(0, 499, 100).astype(int)
    truth = np.argsort(((xq[:, None].astype(float) - xb[rows]) ** 2).sum(-1))[:, :10]
    z, z_hat = h.features(xq), h.decode(h.encode(xb)[rows])
    near = np.argsort(((z[:, None] - z_hat) ** 2).sum(-1))[:, :10]
    share = np.mean([np.isin(*pair).mean() for pair in zip(near, truth, strict=True)])
    assert found["100"] == pytest.approx(share) and 0.2 < share < 0.95


@pytest.mark.parametrize(("found", "anew"), [(0.5, False), (0.46, False), (0.44, True)])
def test_advice_of_recall_rests_on_that_of_validation_queries(found, anew):
    # among 316 rows, halfway between 100 and 1,000 in their logarithm, .5
    held_out = {"100": 0.6, "1000": 0.4}
    decided, sentence = drift.advice_of_recall(found, 316, 200, held_out)
    assert decided == anew and sentence.startswith("train anew" if anew else "keep the encoder")
    assert f"200 queries find {found:.1%} of the 10 nearest of 316 rows" in sentence
    assert f"found 50.0% among as many rows of the training: {found / 0.5:.2f} times" in sentence


HELD_OUT = drift.Figures(500, 0.2, 0.0, 1.0, 0.04, 0.05, 0.02, lost=0.2, far=0.0, limit=0.5)


@pytest.mark.parametrize(
    ("far", "lost", "anew"),
    [(0.0, 0.2, False), (0.05, 0.2, False), (0.06, 0.2, True), (0, 0.29, False), (0, 0.31, True)],
)
def test_advice_rests_on_far_rows_and_on_what_codes_of_the_others_lose(far, lost, anew):
    decided, sentence = drift.advice(HELD_OUT._replace(far=far, lost=lost), HELD_OUT)
    assert decided == anew
    assert sentence.startswith("train anew, and encode all" if anew else "keep the encoder: ")
    assert f"{far:.1%} of the rows lose more than 1.5 times what 99% of the held-out" in sentence
    assert f"the others lose {lost / 0.2:.2f} times as large a share" in sentence
