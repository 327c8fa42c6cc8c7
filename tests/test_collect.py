"""Tables and plots of the runs below a directory."""

import json
import os

import pytest
from matplotlib.image import imread

from launch import collect
from sigah_jax import config
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.report.cells import METRICS, RECALL_AT
from sigah_jax.run import rundir


def claimed(root, bits=32, seed=0, preset="best", **fields):
    """A run directory as it is while the run lasts; double underscores stand for dots."""
    c = config.get_config(f"bits={bits},preset={preset}")
    c.data.name, c.seed = "mnist", seed
    changes = {name.replace("__", "."): value for name, value in fields.items()}
    for name, value in changes.items():
        config.change(c, name, value)
    workdir = root / rundir.run_directory(c, "mnist", changes)
    rundir.claim(workdir, c).close()
    return workdir, c


def finished(root, value, baseline=0.4, bits=32, seed=0, preset="best", **fields):
    """A run directory with results: `value` is every metric of SiGAH, `baseline` that of ITQ."""
    workdir, c = claimed(root, bits, seed, preset, **fields)
    names = {*METRICS, *(f"recall@{r}" for r in RECALL_AT)}
    metrics = {"itq": dict.fromkeys(names, baseline), "sigah": dict.fromkeys(names, value)}
    if baseline is None:
        metrics["itq"] = {}  # it cannot have that many bits
    curves = {"sigah": [[1.0, value], [0.5, 1.0]], "itq": [[1.0, 0.1], [0.5, 1.0]]}
    results = {"config": c.to_dict(), "data": "MNIST", "seed": seed, "bits": bits}
    results["rows"] = {"training": 68_500}
    results |= {"metrics": metrics, "pr_curves": curves}
    (workdir / "results.json").write_text(json.dumps(results))
    return workdir


def printed(capsys, *argv):
    assert collect.main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


def test_mean_and_spread_over_seeds_the_best_in_bold(tmp_path, capsys):
    # .5 and .7: mean .6, standard deviation √(2 · .1² / 1) = .141
    finished(tmp_path, 0.5, seed=0)
    finished(tmp_path, 0.7, seed=1)
    finished(tmp_path, 0.8, bits=64, baseline=None)
    waiting, _ = claimed(tmp_path, bits=64, seed=1)
    out = printed(capsys, tmp_path)
    assert "3 runs finished, 1 unfinished" in out and f"unfinished: {waiting}" in out
    assert (
        "| mnist, map | 32 bits | 64 bits |\n"
        "| --- | ---: | ---: |\n"
        "| SiGAH | **.600\xa0±\xa0.141** | .800 |\n"
        "| ITQ | <u>.400\xa0±\xa0.000</u> | n/a |\n"
    ) in out
    text = (tmp_path / "collected" / "tables.md").read_text()
    assert all(f"| mnist, {metric} |" in text for metric in METRICS)
    names = ("map_bits", "map_1000_bits", "recall_100_bits", "recall_curves", "precision_recall")
    for name in names:
        assert imread(tmp_path / "collected" / "plots" / f"{name}.png").std() > 0.01


def test_rankings_of_real_queries_are_rows_without_a_curve_and_without_an_area(tmp_path, capsys):
    path = finished(tmp_path, 0.5) / "results.json"
    held = json.loads(path.read_text())
    real = {name: 0.6 for name in held["metrics"]["sigah"] if name != "area_rp"}
    real |= {"reranked": 0.9, "ms_per_query": 2.0, "encode_secs": 3.0}
    held["metrics"]["sigah_stages"] = real
    path.write_text(json.dumps(held))
    assert "| SiGAH, real queries, in stages | **.600** |" in printed(capsys, tmp_path)
    text = (tmp_path / "collected" / "tables.md").read_text()
    area = text.partition("| mnist, area_rp |")[2].partition("\n\n")[0]
    assert "| SiGAH, real queries, in stages | n/a |" in area


def test_what_is_collected_is_in_the_first_directory(tmp_path, capsys):
    finished(tmp_path / "a", 0.5)
    finished(tmp_path / "b", 0.6, seed=1)
    printed(capsys, tmp_path / "b", tmp_path / "a")
    assert "| SiGAH | **.550" in (tmp_path / "b" / "collected" / "tables.md").read_text()
    assert not (tmp_path / "a" / "collected").exists()


def test_seeds_of_different_settings_are_not_mixed(tmp_path, capsys):
    finished(tmp_path, 0.5)
    finished(tmp_path, 0.6, optim__gen_lr=0.001)
    finished(tmp_path, 0.3, preset="paper")
    finished(tmp_path, 0.7, bits=64, model__atoms=300)
    out = printed(capsys, tmp_path)
    rows = [line.split(" | ")[0] for line in out.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| SiGAH",
        "| SiGAH, model.atoms=300",
        "| SiGAH, optim.gen_lr=0.001",
        "| SiGAH, preset=paper",
        "| ITQ",
    ]


def test_other_rows_of_a_set_are_another_set(tmp_path, capsys):
    finished(tmp_path, 0.5, baseline=0.4)
    finished(tmp_path, 0.6, baseline=0.5, data__max_rows=3000)
    out = printed(capsys, tmp_path)
    assert "| mnist, map |" in out and "| mnist, max_rows=3000, map |" in out
    assert "| ITQ | <u>.400</u> |" in out and "| ITQ | <u>.500</u> |" in out


def test_how_a_run_was_started_and_watched_makes_no_other_row(tmp_path, capsys):
    finished(tmp_path, 0.5, seed=0, distributed="off")
    finished(tmp_path, 0.7, seed=1, data__dir="/elsewhere", engine="cpu", profile__steps="0:20")
    assert "| SiGAH | **.600\xa0±\xa0.141** |" in printed(capsys, tmp_path)


def test_what_an_experiment_sets_is_not_named(tmp_path, capsys):
    finished(tmp_path, 0.5, data__name="deep1m", data__train_rows=100_000)
    finished(tmp_path, 0.6, data__name="deep1m", data__train_rows=0)
    out = printed(capsys, tmp_path)
    assert "| deep1m, map |" in out and "| deep1m, train_rows=0, map |" in out


def test_vectors_are_named_by_their_file(tmp_path, capsys):
    vectors = {"data__name": "vectors", "data__train_rows": 100_000}
    finished(tmp_path, 0.5, data__base="/big/glove.npy", **vectors)
    assert "| glove, map | 32 bits |" in printed(capsys, tmp_path)


def test_files_of_one_name_in_two_directories_are_two_sets(tmp_path, capsys):
    vectors = {"data__name": "vectors", "data__train_rows": 100_000}
    finished(tmp_path, 0.5, data__base="deep/base.npy", **vectors)
    finished(tmp_path, 0.7, baseline=0.5, seed=1, data__base="gist/base.npy", **vectors)
    finished(tmp_path, 0.7, data__base="my.hdf5:a", **vectors)
    finished(tmp_path, 0.7, data__base="my.hdf5:b", **vectors, data__max_rows=9000)
    finished(tmp_path, 0.7, data__base="glove.npy", **vectors, data__max_rows=9000)
    out = printed(capsys, tmp_path)
    sets = ("deep/base.npy", "gist/base.npy", "my.hdf5:a", "my.hdf5:b, max_rows=9000")
    for name in (*sets, "glove, max_rows=9000"):
        assert f"| {name}, map |" in out
    assert "±" not in out


def test_runs_of_a_set_whose_rows_changed_are_refused(tmp_path, capsys):
    runs = [finished(tmp_path, 0.5, seed=seed) for seed in range(3)]
    for workdir, rows in zip(runs, ("1f", "1f", "2e"), strict=True):
        whole.write_json(workdir / "data.json", {"hashes": {"xt": rows}})
    err = refusal(capsys, tmp_path)
    assert f"{runs[0]} and {runs[2]}: are of mnist, but of other rows" in err
    whole.write_json(runs[2] / "data.json", {"hashes": {"xt": "1f"}})
    assert "3 runs finished" in printed(capsys, tmp_path)
    (runs[2] / "data.json").write_text("{")  # which no command makes again
    err = refusal(capsys, tmp_path)
    assert "data.json: damaged" in err and "bring it back, or give other directories" in err


def test_a_run_that_is_given_twice_counts_once(tmp_path, capsys):
    workdir = finished(tmp_path, 0.5)
    assert "1 runs finished" in printed(capsys, tmp_path, workdir, tmp_path / "runs")


def test_while_a_sweep_runs_only_whole_files_count(tmp_path, capsys):
    finished(tmp_path, 0.5)
    workdir, _ = claimed(tmp_path, seed=1)
    (workdir / "results.json.partial").write_text('{"config"')
    assert "1 runs finished, 1 unfinished" in printed(capsys, tmp_path)


def test_nothing_finished_is_no_error_and_writes_nothing(tmp_path, capsys):
    claimed(tmp_path)
    assert "0 runs finished, 1 unfinished" in printed(capsys, tmp_path)
    assert not (tmp_path / "collected").exists()


def refusal(capsys, *argv):
    assert collect.main([str(a) for a in argv]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    return err


def test_two_runs_that_differ_in_nothing_are_refused(tmp_path, capsys):
    a, b = finished(tmp_path / "a", 0.5), finished(tmp_path / "b", 0.6)
    err = refusal(capsys, tmp_path / "a", tmp_path / "b")
    assert f"{a} and {b}: differ in nothing" in err


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": {}, "metrics": {}}', "\xff"])
def test_a_file_that_is_no_result_is_named(tmp_path, text, capsys):
    path = finished(tmp_path, 0.5) / "results.json"
    path.write_text(text, "latin-1")
    err = refusal(capsys, tmp_path)
    assert f"{path}: damaged" in err and "remove it, then the training's command" in err


def parts(tree, path=()):
    """The paths of all parts of a JSON object, of a list only down to its first entry."""
    for key in tree if isinstance(tree, dict) else range(len(tree[:1])):
        yield (*path, key)
        if isinstance(tree[key], dict | list) and key != "config":
            yield from parts(tree[key], (*path, key))


def test_whatever_part_of_a_result_is_wrong_is_named_or_not_needed(tmp_path):
    path = finished(tmp_path, 0.5) / "results.json"
    text, refused, gone = path.read_text(), set(), object()
    places = [*parts(json.loads(text)), ("config", "data"), ("config", "preset")]
    places += [("config", "data", "name"), ("config", "data", "base")]
    for place in places:
        for value in (gone, None, "x", -7, 1e30, 10**400, float("nan"), True, [], [[]], {"a": 1}):
            results = at = json.loads(text)
            for key in place[:-1]:
                at = at[key]
            if value is gone:
                del at[place[-1]]
            else:
                at[place[-1]] = value
            path.write_text(json.dumps(results))
            cells = []
            try:
                cells = collect.read_runs(collect.find_runs([tmp_path])[0])
            except BadInput as e:
                assert str(e).startswith(f"{path}: damaged") and "\n" not in str(e)
                refused.add(place)
            [collect.table(cells, c.dataset, m) for c in cells for m in METRICS]
    assert set(places) == refused


def test_a_directory_that_does_not_exist_is_named(tmp_path, capsys):
    assert f"{tmp_path}/none: no such directory" in refusal(capsys, tmp_path, tmp_path / "none")
    assert os.listdir(tmp_path) == []
