"""The console command `sigah`, and `python -m sigah_jax`: a subcommand is the `main` of a module.

Imports nothing heavy: help and a wrong subcommand are answered before JAX is there.

Not responsible for flags: each command has its own.
"""

import importlib
import sys
from pathlib import Path

from sigah_jax.errors import printable
from sigah_jax.process import interrupts

# subcommand -> module and function, what it does
COMMANDS = {
    "train": ("main:run", "train an encoder as a config file says, or evaluate a checkpoint"),
    "measure": ("measure:main", "train on a file of vectors and measure what its codes lose"),
    "encode": ("encode:main", "encode a file of vectors"),
    "search": ("search:main", "find the nearest neighbours of queries among codes"),
    "check": ("check:main", "tell whether new rows are like those of the training"),
    "export": ("export:main", "write an encoder as ONNX, StableHLO or plain arrays"),
    "download": ("data.download:run", "get the data sets that are not in the package"),
}
CONFIGS = """\
`sigah train --config=FILE` takes a config file, such as those of experiments/ in a checkout. Where
there is none, the one line

  from sigah_jax.config import vectors_config as get_config

in a file my.py is a config file of your own vectors:

  sigah train --config=my.py:bits=64 --config.data.base=vectors.npy
"""


def main() -> int:
    """Runs the subcommand of the command line; returns its exit code, 2 if there is none."""
    interrupts.begin()
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: sigah SUBCOMMAND [--help] …\n")
        for command, (_, about) in COMMANDS.items():
            print(f"  {command:9} {about}")
        fields = Path(__file__).with_name("config.py")
        print(f"\n{CONFIGS}\nEvery field of a config, with its meaning, is in {fields}.")
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        line = f"error: {printable(name)}: is not a subcommand; give one of {known}, or --help"
        print(line, file=sys.stderr)
        return 2
    sys.argv = [f"sigah {name}", *rest]  # the name that help and errors show
    module_name, _, function = COMMANDS[name][0].partition(":")
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
