"""The console command `sigah`, and `python -m sigah_jax`: a subcommand is the `main` of a module.

Imports nothing heavy: help and a wrong subcommand are answered before JAX is there.

Not responsible for flags: each command has its own.
"""

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from sigah_jax.errors import printable
from sigah_jax.process import interrupts


class Command(NamedTuple):
    """A subcommand."""

    function: str  # module and function
    about: str
    example: str  # its arguments


GROUPS = {
    "Train an encoder": {
        "train": Command(
            "main:run",
            "trains as a config file says, or on MNIST if there is none; evaluates a checkpoint",
            "--config=my.py:bits=64 --config.data.base=vectors.npy",
        ),
        "measure": Command(
            "measure:main",
            "trains on a file of vectors, and measures recall, memory and time of its codes",
            "--input=vectors.npy --bits=64,128",
        ),
    },
    "Use an encoder": {
        "encode": Command(
            "encode:main",
            "writes the codes of a file of vectors, or of queries",
            "--workdir=encoder.npz --input=vectors.npy --output=codes.npy",
        ),
        "search": Command(
            "search:main",
            "finds the nearest rows of a file of codes, or all within a radius",
            "--workdir=encoder.npz --codes=codes.npy --queries=queries.npy --k=10 "
            "--output=near.npz",
        ),
        "check": Command(
            "check:main",
            "tells whether new rows are like those of the training",
            "--workdir=encoder.npz --input=new.npy",
        ),
        "export": Command(
            "export:main",
            "writes an encoder as ONNX, StableHLO or plain arrays",
            "--workdir=encoder.npz --output=encoder.onnx",
        ),
    },
    "Get data": {
        "download": Command(
            "data.download:run", "gets the data sets that are not in the package", "gist1m"
        ),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
CONFIGS = """\
A config file is Python. Those of the benchmarks are in experiments/ of a checkout. For your own
vectors the one line

  from sigah_jax.config import vectors_config as get_config

in a file my.py is a config file:

  sigah train --config=my.py:bits=64 --config.data.base=vectors.npy
"""


def main() -> int:
    """Runs the subcommand of the command line; returns its exit code, 2 if there is none."""
    interrupts.begin()
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: sigah SUBCOMMAND [--help] …")
        for group, commands in GROUPS.items():
            print(f"\n{group}:")
            for command, (_, about, example) in commands.items():
                print(f"  {command:9} {about}\n{'':12}sigah {command} {example}")
        fields = Path(__file__).with_name("config.py")
        print(f"\n{CONFIGS}\nEvery field of a config, with its meaning, is in {fields}.")
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        line = f"error: {printable(name)}: is not a subcommand; give one of {known}, or --help"
        print(line, file=sys.stderr)
        return 2
    sys.argv = [f"sigah {name}", *rest]  # the name that help and errors show
    module_name, _, function = COMMANDS[name].function.partition(":")
    module = importlib.import_module(f"sigah_jax.{module_name}")
    if name == "train":
        _show_flags_of(module)
    return getattr(module, function)()


def _show_flags_of(module) -> None:
    """Lets `sigah train --help` show the module's flags: absl shows those of `__main__` alone."""
    from absl import flags

    sys.modules["__main__"].__doc__ = CONFIGS
    for flag in flags.FLAGS.get_flags_for_module(module):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


if __name__ == "__main__":
    sys.exit(main())
