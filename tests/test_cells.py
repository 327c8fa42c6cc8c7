"""The files of cells: lines in order, none lost or torn, and damage that is named by its line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sigah_jax.errors import BadInput
from sigah_jax.files import locks
from sigah_jax.report import cells
from sigah_jax.report.cells import COSTS, METRICS, RECALL_AT, Line

ROOT = Path(__file__).parent.parent


def cell(method="itq", bits=64, seed=0, **parts):
    values = dict.fromkeys([*METRICS, *(f"recall@{r}" for r in RECALL_AT)], 0.5)
    return {
        "dataset": "mnist",
        "method": method,
        "bits": bits,
        "seed": seed,
        "config": {"data": {"base": ""}},
        "rows": {"training": 1000},
        "data": "here",
        "metrics": values,
        "pr_curve": [[None, 0.1], [0.0, 1.0]],
    } | parts


def real_cell(method="rq", **parts):
    line = cell(method, **parts)
    del line["pr_curve"], line["metrics"]["area_rp"]
    line["metrics"] |= {"reranked": 0.75} | dict.fromkeys(COSTS, 12.5)
    return line


def names(path):
    lines = map(json.loads, path.read_text().splitlines())
    return [(line["method"], line["bits"], line["seed"]) for line in lines]


def test_lines_are_in_the_order_of_method_bits_and_seed(tmp_path):
    for key in [("lsh", 128, 0), ("lsh", 16, 1), ("itq", 64, 0), ("lsh", 16, 0)]:
        cells.add(cell(*key), tmp_path)
    wanted = [("itq", 64, 0), ("lsh", 16, 0), ("lsh", 16, 1), ("lsh", 128, 0)]
    assert names(tmp_path / "mnist.jsonl") == wanted
    assert [c[1:4] for c in cells.read_cells(tmp_path)] == wanted


def test_a_cell_that_is_added_again_takes_the_place_of_the_older_one(tmp_path):
    cells.add(cell(seed=0), tmp_path)
    cells.add(cell(seed=1, data="before"), tmp_path)
    cells.add(cell(seed=1, data="after"), tmp_path)
    assert [c.data for c in cells.read_cells(tmp_path)] == ["here", "after"]


def test_what_is_added_is_read_to_the_last_digit(tmp_path):
    line = cell(pr_curve=[[None, 0.1 + 0.2], [1e-17, 1 / 3]], seconds={"fit": 0.001})
    cells.add(line, tmp_path)
    cells.add(cell("lsh", not_applicable="too long"), tmp_path)
    path = tmp_path / "mnist.jsonl"
    assert cells.read_lines(path)["itq", 64, 0] == line
    itq, lsh = cells.read_cells(tmp_path)
    assert itq.metrics == line["metrics"] and itq.pr_curve == line["pr_curve"]
    assert lsh.metrics is None  # not applicable


def test_each_data_set_has_a_file_and_other_files_are_not_read(tmp_path):
    cells.add(cell(dataset="tiny60k"), tmp_path)
    cells.add(cell(), tmp_path)
    (tmp_path / "mnist.jsonl.partial-host-1").write_text("{")
    assert [c.dataset for c in cells.read_cells(tmp_path)] == ["mnist", "tiny60k"]
    assert cells.read_cells(tmp_path / "none") == []


def test_a_line_is_seen_as_soon_as_it_is_there(tmp_path):
    first, second = (Line(tmp_path / "mnist.jsonl", "itq", 64, seed) for seed in (0, 1))
    assert not first.exists() and first.read() is None
    cells.add(cell(seed=0), tmp_path)
    assert first.exists() and not second.exists()
    cells.add(cell(seed=1), tmp_path)
    assert second.read()["seed"] == 1
    (tmp_path / "mnist.jsonl").unlink()
    assert not first.exists()


ADD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_cells import cell
from sigah_jax.report import cells
for seed in range({count}):
    cells.add(cell({method!r}, seed=seed), Path({root!r}))
"""


def adding(method, count, root):
    code = ADD.format(tests=str(ROOT / "tests"), method=method, count=count, root=str(root))
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)


def test_processes_that_add_at_the_same_time_lose_no_line(tmp_path):
    processes = [adding(method, 40, tmp_path) for method in ("a", "b", "c", "d")]
    assert [process.wait() for process in processes] == [0] * 4
    wanted = [(method, 64, seed) for method in "abcd" for seed in range(40)]
    assert names(tmp_path / "mnist.jsonl") == wanted


def test_a_killed_process_tears_no_line_and_leaves_the_file_to_the_others(tmp_path):
    path = tmp_path / "mnist.jsonl"
    for number in range(5):
        process = adding(f"method{number}", 10**6, tmp_path)
        before = path.stat().st_size if path.exists() else 0
        while not path.exists() or path.stat().st_size < before + 20000:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        keys = names(path)
        assert all((f"method{i}", 64, 0) in keys for i in range(number + 1))
        assert len(cells.read_lines(path)) == len(keys)
    cells.add(cell(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["mnist.jsonl", "mnist.jsonl.lock"]


def test_the_file_is_not_touched_while_another_process_adds(tmp_path):
    lock = tmp_path / "mnist.jsonl.lock"
    with locks.open_file(lock) as f:
        assert locks.take(f, lock)
        process = adding("itq", 1, tmp_path)
        time.sleep(2)
        assert process.poll() is None and not (tmp_path / "mnist.jsonl").exists()
    assert process.wait() == 0 and names(tmp_path / "mnist.jsonl") == [("itq", 64, 0)]


@pytest.mark.parametrize(
    "part, value",
    [
        ("metrics", {"map": 0.5}),
        ("metrics", 1),
        ("metrics", None),
        ("pr_curve", []),
        ("pr_curve", [[1], []]),
        ("pr_curve", 1),
        ("bits", 0),
        ("bits", "64"),
        ("seed", None),
        ("method", []),
        ("dataset", 1),
        ("dataset", "tiny60k"),
        ("config", {}),
        ("config", {"data": {"base": 1}}),
        ("seed", 0),  # the cell of the first line
    ],
)
def test_a_line_that_is_not_a_cell_is_named_by_its_number(tmp_path, part, value):
    path = tmp_path / "mnist.jsonl"
    path.write_text("".join(f"{json.dumps(cell(seed=seed))}\n" for seed in (0, 1)))
    assert len(cells.read_cells(tmp_path)) == 2
    path.write_text(f"{json.dumps(cell())}\n{json.dumps(cell(seed=1) | {part: value})}\n")
    refusal = rf"^{re.escape(str(path))}:2: damaged[^\n]*; remove the line, then the same command"
    with pytest.raises(BadInput, match=refusal):
        cells.read_cells(tmp_path)


def test_a_line_of_real_queries_has_costs_and_no_curve(tmp_path):
    cells.add(real_cell(), tmp_path)
    cells.add(cell(), tmp_path)
    hamming, real = cells.read_cells(tmp_path)
    assert hamming.pr_curve and not real.pr_curve
    assert real.metrics["reranked"] == 0.75 and real.metrics["ms_per_query"] == 12.5


@pytest.mark.parametrize(
    "name, value",
    [("reranked", None), ("reranked", 1.5), ("recall@10", "x"), *((c, -1) for c in COSTS)],
)
def test_a_line_of_real_queries_that_is_not_one_is_refused(tmp_path, name, value):
    line = real_cell()
    line["metrics"][name] = value
    with pytest.raises(ValueError, match=name):
        cells.add(line, tmp_path)
    del line["metrics"][name]
    with pytest.raises(LookupError, match=name):
        cells.add(line, tmp_path)
    line = cell()
    del line["pr_curve"]  # of binary codes
    with pytest.raises(LookupError, match="reranked"):
        cells.add(line, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "<<<<<<< ours", "\xff"])
def test_a_line_that_is_not_json_is_named_and_not_overwritten(tmp_path, text):
    path = tmp_path / "mnist.jsonl"
    path.write_text(f"{json.dumps(cell())}\n{text}\n", "latin-1")
    before = path.read_bytes()
    with pytest.raises(BadInput, match=rf"{re.escape(str(path))}:2: damaged"):
        cells.add(cell(seed=1), tmp_path)
    assert path.read_bytes() == before


def test_a_changed_digit_is_noticed(tmp_path):
    cells.add(cell(seed=3), tmp_path)
    path = tmp_path / "mnist.jsonl"
    path.write_text(path.read_text().replace('"map": 0.5', '"map": 0.6'))
    with pytest.raises(BadInput, match=r":1: damaged \(its content does not fit its hash\)"):
        cells.read_cells(tmp_path)


def test_the_cells_of_this_repository_can_be_told_apart():
    seen = 0
    for path in sorted((ROOT / "results").glob("*.jsonl")):
        assert names(path) == sorted(names(path))
        for line in cells.read_lines(path).values():
            if "not_applicable" not in line:
                seen += 1
                assert re.fullmatch("[0-9a-f]{16}", line["config_hash"])
                assert re.fullmatch("[0-9a-f]{40}|unknown", line["commit"])
                assert line["device"] and line["versions"]["jax"] and line["rows"]["base"]
                assert "/" not in line["data"] + line["config"]["data"]["base"]
    assert seen >= 952  # those of the tables
