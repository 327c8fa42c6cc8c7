from sigah_jax.files import progress


def lines(capsys, monkeypatch, first, calls):
    """What is printed for calls of (second, done) of 200 rows."""
    clock = iter([0.0, *(second for second, _ in calls)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.showing("a.npy", first, 200, "row") as show:
        for _, done in calls:
            show(done)
    return capsys.readouterr().out.splitlines()


def test_a_line_every_ten_seconds_with_the_time_left(capsys, monkeypatch):
    # 20 rows in 11 s: 0.55 s a row, 180 rows are left, 99 s; at 40 rows in 15 s it is silent
    found = lines(capsys, monkeypatch, 0, [(1, 5), (11, 20), (15, 40), (22, 50)])
    assert found[0] == "a.npy: 20.0 row of 200 row (10%), 99 s left"
    assert len(found) == 2


def test_what_was_done_before_says_nothing_of_the_time_left(capsys, monkeypatch):
    # 100 rows were there; 10 more in 20 s, 90 rows are left, 180 s
    found = lines(capsys, monkeypatch, 100, [(20, 110)])
    assert found == ["a.npy: 110 row of 200 row (55%), 180 s left"]


def test_nothing_new_gives_no_line(capsys, monkeypatch):
    assert lines(capsys, monkeypatch, 100, [(20, 100)]) == []
