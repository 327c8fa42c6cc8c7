"""Files of `--config`: whatever is wrong with one is told in a line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sigah_jax import config_file
from sigah_jax.errors import BadInput

ROOT = Path(__file__).parent.parent
FOREIGN = "from ml_collections import ConfigDict\ndef get_config(a): return ConfigDict({'a': 1})\n"
MORE = "from sigah_jax import mnist\ndef get_config(a):\n    c = mnist.get_config(a)\n"


@pytest.mark.parametrize(
    "text, words",
    [
        ("def get_config(a:\n", r"cannot be loaded in line 1 \(SyntaxError: "),
        ("\nx = y\n", r"cannot be loaded in line 2 \(NameError: name 'y' is not defined\)"),
        ("import nowhere\n", r"line 1 \(ModuleNotFoundError: No module named 'nowhere'\)"),
        ("x = 1\n", r"has no get_config\(arguments\)"),
        ("get_config = 1\n", r"has no get_config\(arguments\)"),
        ("def get_config():\n    pass\n", r"get_config failed \(TypeError: "),
        ("def get_config(a):\n    assert a\n", r"get_config failed in line 2 \(AssertionError"),
        ("def get_config(a):\n    return {}[1]\n", r"failed in line 2 \(KeyError: 1\)"),
        ("def get_config(a): return None\n", "get_config returned NoneType; let get_config begin"),
        (FOREIGN, "its config lacks the field .*; let get_config begin"),
        (f"{MORE}    c.bonus = 1\n    return c\n", r"config\.bonus: no such field"),
    ],
)
def test_a_config_file_that_makes_no_config_is_named(tmp_path, text, words):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(BadInput, match=rf"--config=\S*mine\.py: .*{words}") as e:
        config_file.config_of(config_file.load(str(tmp_path / "mine.py")), "")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["nowhere.py", "directory.py", "a.json", ""])
def test_what_is_no_python_file_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("directory.py").mkdir()
    Path("a.json").write_text("{}")
    with pytest.raises(BadInput, match=f"--config={name}: no such Python file"):
        config_file.load(name)


def test_a_config_file_may_hold_a_dataclass(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "from sigah_jax.config import get_config\n"
        "@dataclasses.dataclass\nclass Point:\n    bits: int\n"
    )
    assert config_file.load(str(tmp_path / "mine.py")).Point(32).bits == 32


def test_an_argument_is_refused_in_the_words_of_the_config():
    module = config_file.load(str(ROOT / "experiments" / "mnist.py"))
    assert config_file.config_of(module, "bits=32").model.bits == 32
    assert config_file.config_of(module).model.bits == 64
    with pytest.raises(BadInput, match=r"^config argument bits=0: expected"):
        config_file.config_of(module, "bits=0")


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--config=mine.py", "error: --config=mine.py: cannot be loaded in line 1 (NameError"),
        ("--config.lr=1", "error: --config: no such field: lr"),  # of MNIST's config, the default
    ],
)
def test_the_program_says_it_in_a_line(tmp_path, flag, words):
    (tmp_path / "mine.py").write_text("x = y\n")
    done = subprocess.run(
        [sys.executable, "-m", "sigah_jax.main", flag],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith(words)
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "runs").exists()
