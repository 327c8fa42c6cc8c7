"""SkyPilot task files, as SkyPilot itself reads them."""

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from launch import sweep

ROOT = Path(__file__).parent.parent
MNIST = f"--config={ROOT}/experiments/mnist.py"
SKY = ["--executor=sky", "--bucket=gs://mine/deep"]


@pytest.fixture(params=["L4:1", "A100:8", "tpu-v5litepod-4"])
def files(request, tmp_path, monkeypatch, capsys):
    """The accelerators, and the task files of points 4 and 5."""
    monkeypatch.chdir(tmp_path)
    flags = [MNIST, *SKY, f"--accelerators={request.param}", "--only=4:6"]
    assert sweep.main([*flags, "--config.data.dir=/it's here"]) == 0
    paths = [Path(f"runs/mnist/sky/{number}.yaml") for number in (4, 5)]
    out = capsys.readouterr().out.splitlines()
    assert out[1:] == [f"sky jobs launch --yes --detach-run {path}" for path in paths]
    return request.param, paths


def test_a_file_says_what_the_point_is(files):
    accelerators, paths = files
    first, second = (yaml.safe_load(path.read_text()) for path in paths)
    assert (first["name"], second["name"]) == ("sweep-mnist-4", "sweep-mnist-5")
    assert first["resources"]["accelerators"] == accelerators
    assert first["resources"]["job_recovery"]["recover_on_exit_codes"] == [143]
    assert first["file_mounts"]["/sweep"]["source"] == "gs://mine/deep"
    assert (".[tpu]" in first["setup"]) == accelerators.startswith("tpu")
    assert (".[cuda]" in first["setup"]) != accelerators.startswith("tpu")
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=first[part], text=True, check=True)
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {first['run']}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words[1:3] == ["-m", "sigah_jax.main"] and "--config.data.dir=/it's here" in words
    assert words[-2].startswith("--workdir=runs/mnist/preset=best,bits=32")


def test_a_finished_point_gets_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [MNIST, *SKY, "--accelerators=L4:1", "--only=4:6"]
    done = sweep.plan(sweep.parse(flags))[4].done
    done.parent.mkdir(parents=True)
    done.touch()
    assert sweep.main(flags) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("2 points, 1 of them finished") and len(out) == 2
    assert [path.name for path in Path("runs/mnist/sky").iterdir()] == ["5.yaml"]


@pytest.fixture
def with_data(tmp_path, monkeypatch):
    """The task file of a run whose data lies in a bucket."""
    monkeypatch.chdir(tmp_path)
    flags = [f"--config={ROOT}/experiments/deep1m.py", *SKY, "--accelerators=L4:1", "--only=:1"]
    assert sweep.main([*flags, "--data_bucket=s3://sets/all"]) == 0
    return Path("runs/deep1m/sky/0.yaml")


def test_data_comes_from_a_bucket_of_its_own(with_data):
    task = yaml.safe_load(with_data.read_text())
    assert task["file_mounts"]["/data"] == {"source": "s3://sets/all", "mode": "COPY"}
    assert task["envs"] == {"SIGAH_DATA": "/data"} and "/sweep" in task["file_mounts"]


@pytest.mark.parametrize("stem", ["a #1, [b]", "a'b"])
def test_a_name_stays_a_name_in_yaml(tmp_path, monkeypatch, capsys, stem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{stem}.py").write_text((ROOT / "experiments" / "mnist.py").read_text())
    flags = [f"--config={stem}.py", *SKY, "--accelerators=L4:1", "--only=:1"]
    assert sweep.main(flags) == 0
    (path,) = Path("runs").rglob("*.yaml")
    task = yaml.safe_load(path.read_text())
    assert task["name"] == f"sweep-{stem}-0" and "\n" not in task["run"].strip()
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(shown)[-1] == str(path)


@pytest.mark.parametrize("value", ["x\nsetup: evil", "x\rsetup: evil", "x\u2028y", "x\x85y"])
def test_a_line_break_in_a_value_is_refused(tmp_path, monkeypatch, capsys, value):
    monkeypatch.chdir(tmp_path)
    flags = [MNIST, *SKY, "--accelerators=L4:1", "--only=:1", f"--config.data.dir={value}"]
    assert sweep.main(flags) == 2
    err = capsys.readouterr().err
    assert "--config.data.dir=x\\" in err and "holds a control character" in err
    assert not list(tmp_path.rglob("*.yaml"))


def test_skypilot_accepts_the_bucket_of_data(with_data):
    sky = pytest.importorskip("sky", reason="SkyPilot is not installed: pip install skypilot")
    read = sky.Task.from_yaml(str(with_data))
    assert set(read.storage_mounts) == {"/sweep", "/data"}
    assert read.envs["SIGAH_DATA"] == "/data"


def test_skypilot_accepts_it(files):
    sky = pytest.importorskip("sky", reason="SkyPilot is not installed: pip install skypilot")
    accelerators, paths = files
    task = sky.Task.from_yaml(str(paths[0]))
    (resources,) = task.resources
    name, _, count = accelerators.partition(":")
    assert resources.accelerators == {name: int(count or 1)} and resources.use_spot
    assert resources.job_recovery["recover_on_exit_codes"] == [143]
    assert resources.job_recovery["max_restarts_on_errors"] == 2
    assert "/sweep" in task.storage_mounts and "sigah_jax.main" in task.run


def test_skypilot_refuses_what_it_does_not_know(files, tmp_path):
    sky = pytest.importorskip("sky", reason="SkyPilot is not installed: pip install skypilot")
    path = tmp_path / "wrong.yaml"
    path.write_text(files[1][0].read_text().replace("use_spot", "use_sport"))
    with pytest.raises(ValueError, match="use_sport"):
        sky.Task.from_yaml(str(path))
