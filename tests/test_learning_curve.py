"""The learning curve as a user runs it, on a small file of vectors."""

import numpy as np
import pytest
import sets
from matplotlib import image

from experiments import cell, learning_curve
from sigah_jax.report import cells

ROWS = (600, 1200)


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """Of a set of 3,000 rows, 16 bits; SiGAH is left out, which `test_paper_tables` trains."""
    monkeypatch.setattr(learning_curve, "METHODS", ("itq", "rq"))
    path = tmp_path / "small.npy"
    np.save(path, sets.low_dimensional(3000, 24))
    where = [f"--results={tmp_path / 'results'}", f"--runs={tmp_path / 'runs'}"]
    return [f"--datasets=small={path}", "--rows=1200,600", "--bits=16", *where]


def test_parts_and_all_rows_are_one_curve_and_nothing_runs_twice(tmp_path, flags, capsys):
    everything = [flags[0].replace("--datasets", "--data"), "--method=itq", *flags[2:]]
    assert cell.main(everything) == 0
    assert learning_curve.main(flags) == 0
    out = capsys.readouterr().out
    curves = learning_curve.curves(tmp_path / "results", "small", 16)
    assert list(curves["itq"]) == [*ROWS, 1500]  # half of the rows are held out
    assert list(curves["rq"]) == list(ROWS)
    for rows in ROWS:
        held = cells.read_lines(tmp_path / "results/learning_curve" / str(rows) / "small.jsonl")
        for method in ("itq", "rq"):
            line = held[method, 16, 0]
            assert line["rows"]["training"] == rows
            assert curves[method][rows] == [line["metrics"]["recall@10"]]
    assert "| small, 16 bits, recall@10 | 600 rows | 1,200 rows | 1,500 rows |" in out
    assert "not run" in out  # the quantiser of all rows
    drawn = image.imread(tmp_path / "results/plots/learning_curve.png")
    assert drawn.shape[0] > 400 and drawn.std() > 0.01

    (tmp_path / "small.npy").unlink()
    assert learning_curve.main(flags) == 0  # needs no vectors
    assert "jsonl: " not in capsys.readouterr().out


def test_numbers_of_rows_that_are_none_are_named(flags, capsys):
    assert learning_curve.main([*flags, "--rows=0"]) == 2
    assert "--rows: expected whole numbers above 0" in capsys.readouterr().err
    assert learning_curve.main([*flags, "--rows=600,1501"]) == 2
    assert "has 1500 training rows; leave 1501 out" in capsys.readouterr().err
    assert learning_curve.main([*flags, "--seeds=0"]) == 2
    assert "--seeds: expected 1 or more" in capsys.readouterr().err
