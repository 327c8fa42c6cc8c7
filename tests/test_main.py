"""The whole program, as a user runs it: results, resume after a kill, bad input."""

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sets
from waiting import wait_for

from experiments import vectors
from sigah_jax.data.datasets import load_dataset
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.run import loading

ROOT = Path(__file__).parent.parent
MNIST = "--config=experiments/mnist.py:bits=32"
SHORT = [
    "--config.data.max_rows=3000",
    "--config.data.test_queries=100",
    "--config.data.val_queries=50",
    "--config.train.anchors=16",
    "--config.train.steps=60",
    "--config.train.steps_per_call=5",
    "--config.eval.every_steps=20",
    "--config.eval.baselines=('itq','lsh')",
    "--config.model.hash_widths=(32,)",
    "--config.model.dis_widths=(16,)",
    "--config.model.atoms=80",
    "--config.model.input_dims=64",
    "--config.refit.atoms=96",
]


def command(workdir, *more):
    """The program's command line; a --config among `more` takes the place of the usual one."""
    config = [m for m in more if m.startswith("--config=")] or [MNIST]
    others = [m for m in more if not m.startswith("--config=")]
    start = [sys.executable, "-m", "sigah_jax.main", *config, f"--workdir={workdir}"]
    return [*start, *SHORT, *others]


def environment(devices=1):
    return os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}


def run(workdir, *more):
    return subprocess.run(
        command(workdir, *more), env=environment(), capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The programs that these tests start share what they compile."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("compiled")
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(directory))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    done = run(workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def outcome(workdir):
    """Metrics, logged losses, codes and synthetic features of a finished run."""
    metrics = sets.figures(workdir / "results.json")
    files = [workdir / stage / "metrics.jsonl" for stage in (".", "refit", "alternation")]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    for row in rows:
        row.pop("time/examples_per_sec", None)
    x = np.random.default_rng(0).random((500, 784)).astype(np.float32) * 255
    codes = loading.load(workdir, "latest").encode(x)
    return metrics, rows, codes, loading.load(workdir).synthesise(codes)


def assert_same(a, b):
    assert a[0] == b[0] and a[1] == b[1]
    np.testing.assert_array_equal(a[2], b[2])
    np.testing.assert_array_equal(a[3], b[3])


def test_a_run_leaves_its_table_results_and_pictures(finished):
    workdir, stdout = finished
    assert "SiGAH" in stdout and "ITQ" in stdout and "LSH" in stdout
    results = json.loads((workdir / "results.json").read_text())
    ways = {"sigah", "sigah_both", "sigah_projection", "sigah_synthetic", "sigah_stages"}
    refined = {"sigah_plain"} & set(results["metrics"])  # where a μ cost nothing
    assert set(results["metrics"]) == ways | refined | {"itq", "lsh"}
    for values in results["metrics"].values():
        assert 0.02 < values["map"] < 1 and values["recall@1000"] > values["recall@10"]
    for name in ("training", "precision_recall", "synthetic"):
        assert (workdir / "plots" / f"{name}.png").stat().st_size > 10000
    rows = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(r)["step"] for r in rows] == list(range(5, 65, 5))


def test_the_refit_changes_the_decoder_and_not_the_codes(finished):
    workdir, _ = finished
    h = loading.load(workdir)
    first = loading.load(workdir, h.facts["step"])
    assert h.facts["refitted"] and not first.facts["refitted"]
    assert (h.nets.decoder.atoms, first.nets.decoder.atoms) == (96, 80)
    x = np.random.default_rng(0).random((500, 784)).astype(np.float32) * 255
    codes = h.encode(x, refine=0)
    np.testing.assert_array_equal(codes, first.encode(x))  # a checkpoint's are not refined
    np.testing.assert_array_equal(h.encode_queries(x), first.encode_queries(x))
    assert not np.array_equal(h.decode(codes), first.decode(codes))
    rows = (workdir / "refit" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(r)["step"] for r in rows] == [5, 10, 15, 20]  # .3 of 60, rounded to calls


def test_the_same_command_again_trains_nothing(finished):
    again = run(finished[0])
    assert again.returncode == 0 and "finished before" in again.stdout


def test_eval_mode_gives_the_same_metrics(finished):
    workdir, _ = finished
    before = sets.figures(workdir / "results.json")
    held = {p.name: p.stat().st_mtime_ns for p in (workdir / "plots").glob("*.png")}
    done = run(workdir, "--mode=eval", "--checkpoint=best")
    assert done.returncode == 0, done.stderr
    assert "rows are missing or were changed" not in done.stdout
    assert sets.figures(workdir / "eval_best.json") == before
    assert {p.name: p.stat().st_mtime_ns for p in (workdir / "plots").glob("*.png")} == held
    assert {p.name for p in (workdir / "plots" / "eval_best").iterdir()} == set(held)


def test_a_shared_cache_is_taken_and_not_made_again(finished, tmp_path):
    held = {p.name: p.stat().st_mtime_ns for p in (finished[0] / "data").iterdir()}
    assert len(held) == 3  # graph, ground truth of validation and of test queries
    short = ["--config.refine.iterations=0", "--config.refit.share=0", "--config.eval.baselines=()"]
    done = run(tmp_path / "run", f"--cache={finished[0] / 'data'}", *short)
    assert done.returncode == 0, done.stderr
    assert {p.name: p.stat().st_mtime_ns for p in (finished[0] / "data").iterdir()} == held
    assert not (tmp_path / "run" / "data").exists()


FILES = ("metrics.jsonl", "refit/metrics.jsonl", "alternation/metrics.jsonl")
ROWS = 12 + 4 + 7  # of an uninterrupted run: the training, the refit, the alternation


def logged(workdir):
    """How many rows a run has logged, of all of its stages."""
    paths = [workdir / name for name in FILES]
    return sum(path.read_text().count("\n") for path in paths if path.exists())


def kill_until_done(workdir, kills, generator):
    """Kills the run at random logged rows, then lets it finish; the rows there at each kill."""
    at = []
    for _ in range(kills):
        process = subprocess.Popen(
            command(workdir),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wanted = generator.randint(min(logged(workdir) + 1, ROWS - 1), ROWS - 1)
        wait_for(lambda: logged(workdir) >= wanted, process, secs=200)  # noqa: B023
        process.kill()
        process.wait(20)
        at.append(logged(workdir))
    done = run(workdir)
    assert done.returncode == 0, done.stderr
    return at


def test_killed_at_random_rows_equals_uninterrupted(finished, tmp_path, monkeypatch):
    # what was compiled is read and not written: a kill could leave half a file
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1000")
    at = kill_until_done(tmp_path / "killed", 1, random.Random(0))
    assert all(0 < rows <= ROWS for rows in at) and any(rows < ROWS for rows in at), at
    assert_same(outcome(tmp_path / "killed"), outcome(finished[0]))


@pytest.mark.slow
def test_twenty_kills_equal_uninterrupted(finished, tmp_path):
    for i in range(4):
        kill_until_done(tmp_path / str(i), 5, random.Random(i + 1))
        assert_same(outcome(tmp_path / str(i)), outcome(finished[0]))


def stop(workdir, signal_number, there):
    """Starts the run, sends it a signal once `there()` holds; its exit code and standard error."""
    process = subprocess.Popen(
        command(workdir),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(there, process, secs=200)
    process.send_signal(signal_number)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def test_a_run_that_sigterm_and_ctrl_c_stopped_resumes_to_the_same(finished, tmp_path):
    workdir = tmp_path / "stopped"
    first, last = workdir / FILES[0], workdir / FILES[2]
    code, _ = stop(workdir, signal.SIGTERM, lambda: first.exists() and first.read_text())
    assert code == 143
    # a run that was evaluated must not count as finished
    assert run(workdir, "--mode=eval", "--checkpoint=latest").returncode == 0
    code, stderr = stop(workdir, signal.SIGINT, lambda: last.exists() and last.read_text())
    assert code == 130 and "Traceback" not in stderr
    assert stderr.endswith("interrupted; the same command resumes from the last checkpoint\n")
    assert run(workdir).returncode == 0
    assert_same(outcome(workdir), outcome(finished[0]))


def test_a_second_process_in_the_same_directory_is_refused(tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(tmp_path)
    assert done.returncode == 2 and "another process is running here" in done.stderr


BAD = [
    (["--config.optim.lrr=1"], "lrr"),
    (["--config.train.stepz=20"], 'such field: stepz. Did you mean "steps"'),
    (["--config.optim.gen_lr=fast"], "gen_lr"),
    (["--config.loss.reach_share=7"], "reach_share"),
    (["--config.train.steps=7"], "steps_per_call"),
    (["--config.data.test_queries=2900"], "too few"),
    (["--config=experiments/nope.py"], "nope.py"),
    (["--config=experiments/mnist.py:bits=0"], "bits=0"),
    (["--mode=eval"], "no run there"),
    (["--config=experiments/vectors.py"], "config.data.base is missing"),
    (["--config=experiments/vectors.py", "--config.data.base=tests"], "is a directory"),
    (["--config.data.base=my.npy"], "config.data.base=my.npy"),
    (["--config=experiments/deep1m.py", "--config.data.dir=nowhere"], "base.1M.fbin"),
    (["--config=experiments/tiny100k.py", "--config.data.dir=nowhere"], "download cifar"),
    (["--no_such_flag=1"], "no_such_flag"),
    (["--cache="], "--cache: is empty"),
    (["--checkpoint=20"], "--checkpoint=20: is of --mode=eval"),
    (["--config.model.bits=16"], "config.model.bits cannot be changed"),
    (["--config.preset=paper"], "config.preset cannot be changed"),
]
# a child of one process that has imported the program, for every command line
EACH = """
import os, sys
from pathlib import Path
from sigah_jax import main

for i, argv in enumerate(eval(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(f"{i}.err", os.O_WRONLY | os.O_CREAT), 2)
        sys.argv = argv  # where the flags of the config are looked for
        os._exit(main.run(argv))
    Path(f"{i}.code").write_text(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """Exit code and standard error of each command line of `BAD`."""
    cwd = tmp_path_factory.mktemp("bad")
    for name in ("experiments", "tests"):
        (cwd / name).symlink_to(ROOT / name)
    argvs = [command(cwd / f"run{i}", *more)[2:] for i, (more, _) in enumerate(BAD)]
    started = [sys.executable, "-W", "ignore", "-c", EACH, repr(argvs)]
    env = environment() | {"PYTHONPATH": str(ROOT)}
    subprocess.run(started, cwd=cwd, env=env, capture_output=True, check=True)
    return [
        (int((cwd / f"{i}.code").read_text()), (cwd / f"{i}.err").read_text())
        for i in range(len(BAD))
    ]


@pytest.mark.parametrize("i", range(len(BAD)), ids=[words for _, words in BAD])
def test_bad_input_is_one_line_and_exit_code_2(refusals, i):
    code, stderr = refusals[i]
    assert code == 2
    assert BAD[i][1] in stderr and "Traceback" not in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_vectors_of_ones_own_hold_out_queries_or_take_them(tmp_path):
    x = np.random.default_rng(0).standard_normal((3200, 40)).astype(np.float16)
    np.save(tmp_path / "base.npy", x[:3000])
    np.save(tmp_path / "queries.npy", x[3000:])
    files = ["--config=experiments/vectors.py:bits=32", f"--config.data.base={tmp_path}/base.npy"]
    # other shapes than those of the other tests, so less of it to compile
    files += ["--config.model.decoder=linear", "--config.refine.iterations=0"]
    files += ["--config.refit.share=0", "--config.eval.baselines=()", "--config.train.steps=20"]
    config = vectors.get_config("bits=32")
    config.data.update(base=f"{tmp_path}/base.npy", test_queries=100, train_rows=2000)
    carved = load_dataset(config)
    assert carved.origin.endswith("base.npy, 100 random rows held out as test queries")
    assert (len(carved.xb), len(carved.xt), len(carved.xq)) == (2900, 2000, 100)
    done = run(tmp_path / "given", *files, f"--config.data.queries={tmp_path}/queries.npy")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "given" / "results.json").read_text())["rows"]
    assert rows == {"base": 3000, "training": 2950, "queries": 200}
    queries = f"--config.data.queries={tmp_path}/queries.npy"
    for name, rows in (("queries.npy", x[:200]), ("base.npy", x[:3000] + 1)):
        np.save(tmp_path / name, rows)
        done = run(tmp_path / "given", *files, queries, "--mode=eval")
        assert done.returncode == 2 and "other rows than the data now" in done.stderr


def copy_of(finished, workdir, *without):
    """A finished run without some of its files, which its command makes again."""
    shutil.copytree(finished[0], workdir)
    for name in ("results.json", *without):
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return workdir


def best_of(finished, workdir):
    """The checkpoint in `workdir`, a copy, that the encoder was made from."""
    return workdir / "checkpoints" / str(loading.load(finished[0]).facts["step"])


def test_a_finished_run_that_lost_its_encoder_and_later_stages_makes_them_again(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    for stage in ("refit", "alternation"):
        shutil.rmtree(workdir / stage)
    (workdir / "encoder.npz").unlink()
    with pytest.raises(BadInput, match=r"encoder.npz: is missing from a finished run; the train"):
        loading.load(workdir)  # whose codes would not be refined
    assert run(workdir).returncode == 0
    assert_same(outcome(workdir), outcome(finished[0]))


def test_a_finished_encoder_needs_no_checkpoint(finished, tmp_path):
    workdir = copy_of(finished, tmp_path / "run", "checkpoints", "refit")
    x = np.random.default_rng(0).random((50, 784)).astype(np.float32)
    whole_one, alone = loading.load(finished[0]), loading.load(workdir)
    np.testing.assert_array_equal(alone.encode(x), whole_one.encode(x))
    assert alone.facts["seconds"].keys() == {
        "setup",
        "training",
        "refit",
        "alternation",
        "refinement",
    }


def test_rows_that_were_removed_before_a_resume_are_missed(finished, tmp_path):
    workdir = copy_of(finished, tmp_path / "run", "encoder.npz", "checkpoints/60")
    rows = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text("".join(rows[:3]))
    (workdir / "refit" / "metrics.jsonl").unlink()
    done = run(workdir)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rows are missing or were changed") == 2


def test_rows_that_were_changed_after_the_end_are_missed(finished, tmp_path):
    workdir = copy_of(finished, tmp_path / "run")
    rows = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text(rows.replace("1", "2", 1))
    done = run(workdir, "--mode=eval")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rows are missing or were changed") == 1


def test_a_damaged_checkpoint_is_named_and_left_alone(finished, tmp_path):
    workdir = copy_of(finished, tmp_path / "damaged", "encoder.npz", "refit")
    best = best_of(finished, workdir)
    for path in (best / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    done = run(workdir)
    assert done.returncode == 2 and str(best) in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert best.exists()


def test_a_checkpoint_of_another_shape_is_refused(finished, tmp_path):
    workdir = copy_of(finished, tmp_path / "mixed", "encoder.npz", "checkpoints/60")
    path = workdir / "checkpoints" / "40" / "seal.json"  # resumed from
    facts = whole.read_json(path, "")
    name = next(name for name in facts["arrays"] if "linear" in name)
    facts["arrays"][name] = "float32[7,7]"
    whole.write_json(path, facts)
    done = run(workdir)
    assert done.returncode == 2 and "is float32[7,7] there" in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_foreign_run_directory_is_refused(finished):
    done = run(finished[0], "--config.seed=1")
    assert done.returncode == 2 and "another config (seed=0 there)" in done.stderr


def test_a_typing_error_does_not_claim_the_run_directory(tmp_path):
    x = np.random.default_rng(0).standard_normal((1000, 20)).astype(np.float32)
    np.save(tmp_path / "base.npy", x)
    more = ["--config=experiments/vectors.py:bits=32", "--config.train.steps=20"]
    more += ["--config.eval.baselines=()", "--config.model.decoder=linear"]
    more += ["--config.refine.iterations=0", "--config.refit.share=0"]
    home = environment() | {"HOME": str(tmp_path)}

    def start(*more):
        argv = command("~/run", *more)
        return subprocess.run(argv, env=home, capture_output=True, text=True, check=False)

    done = start(*more, f"--config.data.base={tmp_path}/bose.npy")
    assert done.returncode == 2 and "bose.npy" in done.stderr
    more.append("--config.data.base=~/base.npy")
    done = start(*more, "--config.train.anchors=400")
    assert done.returncode == 2 and "lower anchors" in done.stderr
    done = start(*more)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").exists()


def test_a_run_outlives_its_terminal_in_any_locale_and_setting_of_jax(tmp_path):
    base = tmp_path / os.fsdecode(b"base\xff.npy")
    np.save(base, np.random.default_rng(0).standard_normal((1000, 20)).astype(np.float32))
    more = ["--config=experiments/vectors.py:bits=32", "--config.train.steps=20"]
    more += ["--config.eval.baselines=('itq',)", f"--config.data.base={base}"]
    home = environment() | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    home |= {"JAX_TRANSFER_GUARD": "disallow", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    argv = ["bash", "-c", '"$@" >/dev/full 2>&- <&-', "-", *command(tmp_path / "run", *more)]
    assert subprocess.run(argv, env=home, check=False).returncode == 0
    log = (tmp_path / "run" / "log.txt").read_text("utf-8")
    assert "base\\udcff.npy" in log and "κ" in log and "results: " in log.splitlines()[-1]


def test_a_cache_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "run", f"--cache={tmp_path / 'file'}")
    assert done.returncode == 2 and f"{tmp_path / 'file'}: cannot be used" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_loss_that_is_not_finite_stops_with_code_3(tmp_path):
    done = run(
        tmp_path / "nan", "--config.loss.reconstruction=3e38", "--config.loss.quantisation=3e38"
    )
    assert done.returncode == 3
    assert "not finite at step" in done.stderr and "Traceback" not in done.stderr
