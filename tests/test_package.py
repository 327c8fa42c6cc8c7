"""The package as it is installed: its dependencies, its licence and its console command."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import sigah_jax
from sigah_jax import __main__ as console

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# ends the process with a module in it that help must not wait for
HEAVY = "import sys; heavy = {'jax', 'numpy', 'absl', 'faiss'} & set(sys.modules); assert not heavy"


def sigah(*argv):
    command = [sys.executable, "-m", "sigah_jax", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_type_checkers_see_the_names_that_are_imported_when_they_are_asked_for():
    tree = ast.parse(Path(sigah_jax.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: line.module for line in block.body for alias in line.names}
    assert told == {name: f"sigah_jax.{where}" for name, where in sigah_jax._MODULES.items()}
    assert sorted(told) == sorted(sigah_jax.__all__) == dir(sigah_jax)
    names = {}
    exec("from sigah_jax import *", names)
    assert {*told} == {*names} - {"__builtins__"}


def test_requirements_are_the_dependencies_and_pytest():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    stated = [text for line in lines if (text := line.partition("#")[0].strip())]
    assert stated == [*PYPROJECT["project"]["dependencies"], "pytest>=9"]


def test_the_licence_files_hold_the_licences_that_are_named():
    stated = PYPROJECT["project"]["license"]
    own, notice = ((ROOT / name).read_text() for name in PYPROJECT["project"]["license-files"])
    assert "Apache-2.0" in stated and own.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "CC-BY-SA-3.0" in stated and "CC BY-SA 3.0" in notice
    assert list((ROOT / "sigah_jax" / "data" / "mnist").glob("*.gz"))  # what the second is of


def test_the_console_command_is_there():
    (name, value), *others = PYPROJECT["project"]["scripts"].items()
    assert (name, others) == ("sigah", [])
    assert EntryPoint(name, value, "console_scripts").load() is console.main


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",)])
def test_help_lists_the_subcommands(argv):
    done = sigah(*argv)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for name in ("train", "measure", "encode", "search", "check", "export", "download"):
        assert sum(line.split()[:1] == [name] for line in lines) == 1
    assert str(ROOT / "sigah_jax" / "config.py") in lines[-1]


@pytest.mark.parametrize("argv", [["--help"], ["tain"]])
def test_an_answer_without_a_subcommand_loads_nothing_heavy(argv):
    code = f"import sys; sys.argv = ['sigah', *{argv}]; from sigah_jax.__main__ import main; main()"
    command = [sys.executable, "-c", f"{code}; {HEAVY}"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}  # JAX checks those
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_subcommand_is_refused_in_one_line():
    done = sigah("tr\nain", "--config=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: tr\\nain: is not a subcommand; give one of train, measure, encode, search, check, "
        "export, download, or --help\n"
    )


@pytest.mark.parametrize("name", sorted(set(console.COMMANDS) - {"train"}))
def test_help_of_a_subcommand_names_it(name):
    done = sigah(name, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: sigah {name} [-h]")


def test_help_of_train_shows_its_flags_and_how_to_write_a_config():
    done = sigah("train", "--help")
    assert done.returncode == 1  # as absl has it
    for word in ("--config:", "--workdir:", "--mode:", "vectors_config as get_config"):
        assert word in done.stdout


def test_a_subcommand_gets_its_flags_and_gives_its_exit_code(tmp_path):
    output = f"--output={tmp_path / 'codes.txt'}"
    done = sigah("encode", f"--workdir={tmp_path}", "--input=x.npy", output)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {output}: ") and done.stderr.count("\n") == 1


def test_a_training_without_a_config_takes_mnist(tmp_path):
    done = sigah("train", "--config.data.max_rows=1500", f"--workdir={tmp_path}")
    line = "error: config.data.test_queries: 1500 rows are too few, expected at least 2000\n"
    assert (done.returncode, done.stderr) == (2, line)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["data"]["name"] == "mnist"


def test_the_config_file_that_help_shows_is_one(tmp_path):
    (line,) = (text for text in console.CONFIGS.splitlines() if "import" in text)
    (tmp_path / "my.py").write_text(line.strip())
    config = f"--config={tmp_path / 'my.py'}:bits=24"
    base = tmp_path / "missing.npy"
    done = sigah("train", config, f"--config.data.base={base}", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert (
        done.stderr == f"error: {base}: cannot be read (No such file or directory); check the "
        "path and its permissions\n"
    )


def test_the_subcommands_are_the_commands_of_the_package():
    for name, command in console.COMMANDS.items():
        module, _, attribute = command.function.partition(":")
        assert callable(getattr(import_module(f"sigah_jax.{module}"), attribute)), name
