"""`experiments.tour` in short form: every step of it, and its picture."""

import hashers
import numpy as np
from matplotlib.image import imread

from experiments import tour


def test_the_tour_searches_in_every_way_and_leaves_its_picture(tmp_path, monkeypatch, capsys):
    fit = tour.sigah_jax.fit
    monkeypatch.setattr(
        tour.sigah_jax,
        "fit",
        lambda x, bits, changes: fit(x, bits, changes=changes | hashers.SMALL),
    )
    recalls = list(tour.tour(1300, 32, 20, tmp_path / "tour.png").values())
    hamming, _, stages, reranked = recalls
    assert 10 / 1300 < hamming < stages < reranked  # a random ranking finds 10 of 1,300
    assert reranked > 0.8
    picture = imread(tmp_path / "tour.png")[..., :3]
    is_green = (picture[..., 1] > picture[..., 0] + 0.2) & (picture[..., 1] > picture[..., 2] + 0.2)
    assert np.any(is_green)  # some neighbour is drawn as found
    out = capsys.readouterr().out
    assert "3136 bytes a vector became 4" in out and "of the variance" in out


def test_a_picture_with_another_ending_is_refused_before_it_begins(capsys):
    assert tour.main(["--output=tour.jpg"]) == 2
    assert "--output=tour.jpg: the picture is a .png file" in capsys.readouterr().err
