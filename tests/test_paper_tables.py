"""The paper's tables as a user runs them, on a small file of vectors."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_for

from experiments import cell, pages, paper_tables
from sigah_jax.baselines.methods import METHODS
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.report import cells
from sigah_jax.report.cells import METRICS, RECALL_AT
from sigah_jax.report.tables import NAMES


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "small.npy"
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 24))
    x = centres[rng.integers(0, 20, 3500)] + 0.3 * rng.standard_normal((3500, 24))
    np.save(path, x.astype(np.float32))
    return path


def flags(tmp_path, vectors, *more):
    readme = tmp_path / "README.md"
    if not readme.exists():
        readme.write_text("<!-- table: small 16 short -->\n<!-- end -->\n")
    (tmp_path / "page.md").touch()
    names = {"results": "results", "runs": "runs", "readme": "README.md", "page": "page.md"}
    paths = [f"--{flag}={tmp_path / name}" for flag, name in names.items()]
    return [f"--datasets=small={vectors}", *paths, *more]


def lines(tmp_path):
    return cells.read_lines(tmp_path / "results" / "small.jsonl")


def tables(tmp_path):
    return {p.name: p.read_bytes() for p in (tmp_path / "results").glob("*.*")} | {
        "README": (tmp_path / "README.md").read_bytes()
    }


def test_only_a_length_that_a_method_cannot_have_is_not_applicable(
    tmp_path, vectors, monkeypatch, capsys
):
    def fails(key, xt, bits):
        raise BadInput("training rows: too few")

    monkeypatch.setitem(METHODS, "lsh", METHODS["lsh"]._replace(fit=fails))
    argv = [f"--data=small={vectors}", "--bits=64", f"--results={tmp_path}", f"--runs={tmp_path}"]
    assert cell.main([*argv, "--method=lsh"]) == 2
    assert capsys.readouterr().err == "error: training rows: too few\n"
    assert not list(tmp_path.rglob("*.jsonl"))
    assert cell.main([*argv, "--method=pca_rr"]) == 0
    (line,) = cells.read_lines(tmp_path / "small.jsonl").values()
    assert "24 columns" in line["not_applicable"]


def test_runs_what_is_missing_then_nothing_and_rewrites_identical_files(tmp_path, vectors, capsys):
    argv = flags(tmp_path, vectors, "--methods=lsh,itq", "--bits=16", "--seeds=2")
    argv += ["--devices=0,1"]  # two cells at a time
    assert paper_tables.main(argv) == 0
    out = capsys.readouterr().out
    assert "4 of 4 cells to run" in out
    first = tables(tmp_path)
    assert "| ITQ | 2 | ." in first["README"].decode()
    assert "tables.md" not in first and "mnist" not in first["tables.tex"].decode()
    results = lines(tmp_path)["lsh", 16, 1]
    assert results["config"]["data"]["base"] == vectors.name and len(results["config_hash"]) == 16
    assert results["data"].startswith(f"{vectors.name}, ")  # not where the file lay
    assert results["seconds"]["fit"] >= 0 and results["peak_rss_bytes"] > 1e8
    assert 0.05 < results["metrics"]["map"] < 1
    assert paper_tables.main(argv) == 0
    assert "0 of 4 cells to run" in capsys.readouterr().out
    assert tables(tmp_path) == first
    assert paper_tables.main([*argv, "--check"]) == 0
    (tmp_path / "README.md").write_text(first["README"].decode().replace("| .", "| .9"))
    assert paper_tables.main([*argv, "--check"]) == 1
    assert "README.md: old" in capsys.readouterr().out


def test_a_quantiser_is_a_cell_of_real_queries_or_says_why_not(tmp_path, vectors):
    argv = flags(tmp_path, vectors, "--methods=sqtqmse1,rabitq,rq", "--bits=16", "--seeds=2")
    (tmp_path / "README.md").write_text("<!-- table: small 16 short -->\n<!-- end -->\n")
    assert paper_tables.main(argv) == 0
    held = lines(tmp_path)
    assert sorted(held) == [("rabitq", 16, 0), ("rq", 16, 0), ("rq", 16, 1), ("sqtqmse1", 16, 0)]
    assert "factors alone take 8 bytes" in held["rabitq", 16, 0]["not_applicable"]
    line = held["rq", 16, 0]
    assert line["config"].keys() == {"data"} and "pr_curve" not in line
    assert 0.1 < line["metrics"]["recall@10"] < 1 and line["metrics"]["ms_per_query"] > 0
    assert line["metrics"]["encode_secs"] == line["seconds"]["encode"] > 0
    readme = (tmp_path / "README.md").read_text()
    assert "RaBitQ" not in readme and "| residual quantiser | 2 | ." in readme
    assert "| OPQ, 8 columns a byte | 2 | not run" in readme


def test_killed_half_way_no_cell_is_lost_and_no_half_cell_counts(tmp_path, vectors):
    argv = flags(tmp_path, vectors, "--methods=lsh", "--bits=16", "--seeds=3")
    command = [sys.executable, "-m", "experiments.paper_tables", *argv]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: lines(tmp_path), process, secs=200)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    done = lines(tmp_path)
    assert 1 <= len(done) < 3 and all(line["metrics"] for line in done.values())
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert len(lines(tmp_path)) == 3
    assert lines(tmp_path) | done == lines(tmp_path)


def test_a_dry_run_prints_commands_and_runs_none(tmp_path, vectors, capsys):
    argv = flags(tmp_path, vectors, "--methods=main", "--bits=64", "--seeds=2", "--dry_run")
    assert paper_tables.main(argv) == 0
    out = capsys.readouterr().out.splitlines()
    once = [name for name, method in METHODS.items() if not method.random]
    assert len(out) == 1 + 2 * len(paper_tables.MAIN) - len(once)
    assert all("experiments.cell" in line for line in out[1:])
    assert not (tmp_path / "results").exists()


def test_every_method_has_a_name_for_people_and_every_ablation_a_valid_config():
    tables = paper_tables.MAIN, pages.BINARY, pages.REAL, pages.ABLATION
    assert {method for table in tables for method in table} <= NAMES.keys()
    for method, changes in cell.VARIANTS.items():
        config = cell.make_config("mnist", method, 64, 1)
        assert config.seed == 1 and config.eval.baselines == ()
        for field, value in changes.items():
            node = config
            for name in field.split("."):
                node = node[name]
            assert node == value


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--methods=magic", "'magic' is none of"),
        ("--bits=64,x", "expected whole numbers"),
        ("--seeds=0", "expected 1 or more"),
    ],
)
def test_wrong_flags_are_named(tmp_path, vectors, flag, words, capsys):
    assert paper_tables.main(flags(tmp_path, vectors, flag)) == 2
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


def test_a_cell_that_fails_is_reported(tmp_path, capsys):
    np.save(tmp_path / "few.npy", np.eye(9, dtype=np.float32))
    argv = flags(tmp_path, tmp_path / "few.npy", "--methods=lsh", "--bits=16", "--seeds=1")
    assert paper_tables.main(argv) == 1
    out = capsys.readouterr()
    assert "config.data.test_queries" in out.out and "failed: small lsh" in out.err


def test_a_missing_file_starts_nothing(tmp_path, capsys):
    argv = flags(tmp_path, tmp_path / "missing.npy", "--methods=lsh", "--seeds=1")
    assert paper_tables.main(argv) == 2
    out = capsys.readouterr()
    assert "missing.npy: cannot be read" in out.err and not out.out


def test_the_cells_of_the_readme_are_all_there(capsys, monkeypatch):
    monkeypatch.chdir(Path(paper_tables.__file__).parents[1])
    assert paper_tables.main(["--datasets=mnist", "--bits=64", "--seeds=1", "--dry_run"]) == 0
    assert capsys.readouterr().out.startswith("0 of ")


def test_cells_of_another_file_are_not_taken_for_those_of_this_one(tmp_path, vectors, capsys):
    argv = flags(tmp_path, vectors, "--methods=lsh", "--bits=16", "--seeds=1")
    assert paper_tables.main(argv) == 0
    np.save(tmp_path / "other.npy", np.load(vectors))
    argv = flags(tmp_path, tmp_path / "other.npy", "--methods=lsh", "--bits=16", "--seeds=1")
    assert paper_tables.main(argv) == 2
    assert "small.jsonl: lsh, 16 bits, seed 0 is of another file" in capsys.readouterr().err


def test_a_cell_of_other_settings_is_named_and_not_taken_for_todays(tmp_path, vectors, capsys):
    argv = flags(tmp_path, vectors, "--methods=sigah", "--bits=64", "--seeds=1")
    config = cell.make_config(f"small={vectors}", "sigah", 64, 0).to_dict()
    held = {"dataset": "small", "method": "sigah", "bits": 64, "seed": 0, "config": config}
    values = dict.fromkeys([*METRICS, *(f"recall@{r}" for r in RECALL_AT)], 0.5)
    held |= {"metrics": values, "pr_curve": [[1.0], [1.0]], "rows": {"training": 1000}}
    cells.add(held, tmp_path / "results")
    assert paper_tables.main([*argv, "--dry_run"]) == 0
    assert "0 of 1 cells to run" in capsys.readouterr().out
    config["train"]["epochs"] = 0  # the 1,000 rows read more often
    cells.add(held, tmp_path / "results")
    assert paper_tables.main([*argv, "--dry_run"]) == 2
    assert "trained with other settings" in capsys.readouterr().err
    held["rows"]["training"] = 50_000  # of which all steps are fewer passes
    cells.add(held, tmp_path / "results")
    assert paper_tables.main([*argv, "--dry_run"]) == 0
    assert "0 of 1 cells to run" in capsys.readouterr().out
    config["refine"]["iterations"] = 0  # codes not refined
    cells.add(held, tmp_path / "results")
    assert paper_tables.main([*argv, "--dry_run"]) == 2
    assert "trained with other settings" in capsys.readouterr().err
    held["method"] = "sigah_plain"
    config["refit"]["share"] = 0.0  # which refined codes and real queries depend on, these not
    cells.add(held, tmp_path / "results")
    plain = flags(tmp_path, vectors, "--methods=sigah_plain", "--bits=64", "--seeds=1")
    assert paper_tables.main([*plain, "--dry_run"]) == 0
    assert "0 of 1 cells to run" in capsys.readouterr().out
    held["method"], config["refine"]["iterations"] = "sigah", 16
    cells.add(held, tmp_path / "results")
    assert paper_tables.main([*argv, "--dry_run"]) == 2
    assert "trained with other settings" in capsys.readouterr().err
    config["refit"]["share"], config["loss"]["ordinal"] = 0.3, 0.5
    cells.add(held, tmp_path / "results")
    line = f"{tmp_path}/results/small.jsonl: sigah, 64 bits, seed 0"
    assert paper_tables.main([*argv, "--dry_run"]) == 2
    assert f"{line}: trained with other settings" in capsys.readouterr().err
    assert paper_tables.main([*argv, "--check"]) == 1
    assert f"{line}: old" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["\n", "{", "[]", '{"config": 1}', '{"config": {"data": {}}}'])
def test_a_damaged_line_is_named_and_starts_nothing(tmp_path, vectors, text, capsys):
    argv = flags(tmp_path, vectors, "--methods=lsh,sigah", "--bits=64", "--seeds=1")
    path = tmp_path / "results" / "small.jsonl"
    path.parent.mkdir()
    path.write_text(text)
    one_cell = ["--method=lsh", "--bits=64", f"--results={path.parent}", f"--runs={tmp_path}/runs"]
    commands = [(paper_tables.main, [*argv, *more]) for more in ([], ["--dry_run"], ["--check"])]
    commands += [(cell.main, [f"--data=small={vectors}", *one_cell])]
    for main, flag in commands:
        assert main(flag) == 2
        out = capsys.readouterr()
        assert out.err.startswith(f"error: {path}:1: damaged") and out.err.count("\n") == 1
        assert "remove the line, then the same command runs its cell again" in out.err
    assert not (tmp_path / "runs").exists() and path.read_text() == text


def test_a_job_of_a_cell_is_done_when_its_line_is_there(tmp_path, vectors):
    args = paper_tables.parse(flags(tmp_path, vectors, "--methods=itq", "--bits=64", "--seeds=2"))
    first, second = (paper_tables.job_of(*wanted, args) for wanted in paper_tables.declare(args))
    assert not first.done.exists()
    names = {"dataset": "small", "method": "itq", "bits": 64, "seed": 0}
    cells.add(names | {"not_applicable": "too long"}, args.results)
    assert first.done.exists() and not second.done.exists()


def test_damaged_results_of_a_run_make_no_cell(tmp_path, vectors, monkeypatch, capsys):
    argv = ["--method=sigah", "--bits=64", f"--results={tmp_path}", f"--runs={tmp_path}"]
    workdir = tmp_path / "small" / "sigah" / "bits64" / "seed0"
    workdir.mkdir(parents=True)
    monkeypatch.setattr(cell, "train_and_evaluate", lambda *_: None)  # it is finished
    for text in ('{"metrics": {"sigah": {}}, "pr_curves": []}', "{"):
        (workdir / "results.json").write_text(text)
        assert cell.main([f"--data=small={vectors}", *argv]) == 2
        assert f"error: {workdir}/results.json: damaged" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.jsonl"))


def finished_run(tmp_path, vectors, monkeypatch, refined=True):
    """Makes a cell of `sigah` find a finished training; gives the cell's flags."""
    values = dict.fromkeys([*METRICS, *(f"recall@{r}" for r in RECALL_AT)], 0.5)
    real = {name: x for name, x in values.items() if name != "area_rp"}
    real |= {"reranked": 0.75, "ms_per_query": 2.0, "encode_secs": 3.0}
    metrics = {"sigah": values | {"map": 0.6}, "sigah_both": values, "sigah_plain": values}
    if not refined:
        del metrics["sigah_plain"]
    config = cell.make_config(f"small={vectors}", "sigah", 64, 0).to_dict()
    run = {"config": config, "data": f"{vectors}, rows of it", "rows": {"training": 2000}}
    run["pr_curves"] = {method: [[1.0], [1.0]] for method in metrics}
    run["metrics"] = metrics | dict.fromkeys(cell.ROWS[1:], real)
    workdir = cell.run_directory(tmp_path / "runs", "small", "sigah", 64, 0)
    workdir.mkdir(parents=True)
    whole.write_json(workdir / "results.json", run)
    monkeypatch.setattr(cell, "train_and_evaluate", lambda *_: None)
    return [f"--data=small={vectors}", "--method=sigah", "--bits=64",
            f"--results={tmp_path}/results", f"--runs={tmp_path}/runs"]  # fmt: skip


def test_a_run_of_sigah_leaves_a_line_for_each_search_of_its_codes(tmp_path, vectors, monkeypatch):
    assert cell.main(finished_run(tmp_path, vectors, monkeypatch)) == 0
    held = lines(tmp_path)
    rows = {*cell.ROWS, "sigah_plain", "sigah"}
    assert held.keys() == {(row, 64, 0) for row in rows}
    assert {line["config"]["data"]["base"] for line in held.values()} == {vectors.name}
    assert held["sigah_stages", 64, 0]["metrics"]["reranked"] == 0.75
    curves = {method for (method, _, _), line in held.items() if "pr_curve" in line}
    assert curves == {"sigah", "sigah_both", "sigah_plain"}
    iterations = {m: line["config"]["refine"]["iterations"] for (m, _, _), line in held.items()}
    assert iterations == dict.fromkeys(rows, 16) | {"sigah_plain": 0}
    path = tmp_path / "results" / "small.jsonl"
    places = [cells.Line(path, row, 64, 0) for row in rows]
    assert not any(map(cell.of_other_settings, places))


def test_a_run_that_does_not_refine_has_equal_lines_of_plain_codes(tmp_path, vectors, monkeypatch):
    assert cell.main(finished_run(tmp_path, vectors, monkeypatch, refined=False)) == 0
    held = lines(tmp_path)
    assert held["sigah_plain", 64, 0]["metrics"] == held["sigah", 64, 0]["metrics"]


def test_a_line_of_plain_codes_that_were_trained_otherwise_stays(tmp_path, vectors, monkeypatch):
    argv = finished_run(tmp_path, vectors, monkeypatch)
    assert cell.main(argv) == 0
    plain = lines(tmp_path)["sigah_plain", 64, 0]
    plain["metrics"]["map"], plain["config"]["loss"]["ordinal"] = 0.1, 0.5
    cells.add(plain, tmp_path / "results")
    assert cell.main(argv) == 0
    assert lines(tmp_path)["sigah_plain", 64, 0] == plain
    plain["config"]["loss"]["ordinal"] = 1.0
    cells.add(plain, tmp_path / "results")
    assert cell.main(argv) == 0
    assert lines(tmp_path)["sigah_plain", 64, 0]["metrics"]["map"] == 0.5


def test_a_search_of_codes_that_were_trained_otherwise_is_replaced(tmp_path, vectors, monkeypatch):
    argv = finished_run(tmp_path, vectors, monkeypatch)
    assert cell.main(argv) == 0
    fresh = lines(tmp_path)["sigah_stages", 64, 0]
    stale = fresh | {"config": fresh["config"] | {"refit": {}}}
    cells.add(stale | {"metrics": fresh["metrics"] | {"map": 0.1}}, tmp_path / "results")
    assert cell.main(argv) == 0
    assert lines(tmp_path)["sigah_stages", 64, 0] == fresh


def test_rows_of_another_file_are_not_overwritten(tmp_path, vectors, monkeypatch, capsys):
    assert cell.main(finished_run(tmp_path, vectors, monkeypatch)) == 0
    path = tmp_path / "results" / "small.jsonl"
    kept = [text for text in path.read_text().splitlines() if '"sigah_plain"' in text]
    path.write_text("".join(f"{text}\n" for text in kept))
    np.save(tmp_path / "other.npy", np.load(vectors))
    argv = flags(tmp_path, tmp_path / "other.npy", "--methods=sigah", "--bits=64", "--seeds=1")
    assert paper_tables.main([*argv, "--dry_run"]) == 2
    assert "sigah_plain, 64 bits, seed 0 is of another file" in capsys.readouterr().err


def test_pages_of_this_project_are_of_its_own_results(tmp_path, vectors, monkeypatch, capsys):
    argv = [f"--datasets=small={vectors}", "--methods=lsh", "--bits=16"]
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    for name in ("README.md", "docs/results.md"):
        Path(name).write_text("mine")
    assert paper_tables.parse([*argv, "--results=other"]).pages == []
    pages = [str(page) for page in paper_tables.parse(argv).pages]
    assert pages == ["docs/results.md", "README.md"]
    assert paper_tables.main([*argv, "--page=docs/typo.md"]) == 2
    assert "--page=docs/typo.md: no such page" in capsys.readouterr().err
    assert paper_tables.main(["--check", "--results=nowhere"]) == 2
    assert "--results=nowhere: no such directory" in capsys.readouterr().err


def test_an_unknown_data_set_starts_nothing(tmp_path, vectors, capsys):
    for name in ("mnst", "speed", "a/b=x.npy", "=x.npy"):
        argv = flags(tmp_path, vectors, f"--datasets={name}", "--methods=lsh")
        assert paper_tables.main(argv) == 2
        assert f"data set {name!r}: is none of experiments/" in capsys.readouterr().err
