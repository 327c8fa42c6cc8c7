"""What a run writes for people and tools."""

import io
import json
import sys
from types import SimpleNamespace

from sigah_jax.run import logs


def test_a_line_cut_off_by_a_kill_is_not_a_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert logs.read_rows(path) == []
    for step in (5, 10, 15):
        logs.append_row(path, {"step": step})
    with path.open("a") as f:
        f.write('{"step": 20')
    assert [row["step"] for row in logs.read_rows(path)] == [5, 10, 15]


def test_rows_after_the_restored_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (5, 10, 15):
        logs.append_row(path, {"step": step})
    logs.drop_rows_after(path, 10)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10]


def test_without_a_terminal_progress_is_lines_with_the_time_left(tmp_path, capsys):
    log = logs.Log(tmp_path / "log.txt")
    log.progress(50, 100, {"loss": "1.5"})
    log.progress(60, 100, {"loss": "1.4"})  # within ten seconds: silent
    log.progress(100, 100, {"loss": "1.3"})  # the last step always
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("step 50/100  loss 1.5") and "left" in lines[0]
    assert lines[1].startswith("step 100/100  loss 1.3")
    assert [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()] == (
        lines
    )


def test_the_time_left_follows_the_pace_of_the_stage(tmp_path, capsys, monkeypatch):
    moments = iter((100, 200, 1000, 1020))
    clock = SimpleNamespace(monotonic=lambda: next(moments), strftime=lambda _: "now")
    monkeypatch.setattr(logs, "time", clock)
    log = logs.Log(tmp_path / "log.txt")
    log.progress(20, 40, {})
    log.progress(40, 40, {})
    log.end_progress()
    log.progress(20, 80, {})
    log.progress(40, 80, {})  # 20 steps in 20 s, 40 to come
    shown = [line.split("left ")[1] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["?", "0 s", "?", "40 s"]


def test_the_log_is_utf_8_and_has_every_line_whatever_the_terminal_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    logs.Log(tmp_path / "log.txt").line("κ of \udcff")
    assert (tmp_path / "log.txt").read_bytes().endswith(" κ of \\udcff\n".encode())
