"""The program: flags, device report, one call.

python -m sigah_jax.main --config=experiments/mnist.py:bits=64
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import os
import signal
import sys
import traceback
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from sigah_jax import config_file
from sigah_jax.command_line import tell
from sigah_jax.config import check_field
from sigah_jax.devices import hosts, parallel
from sigah_jax.errors import BadInput
from sigah_jax.process import interrupts
from sigah_jax.run import rundir
from sigah_jax.training.experiment import evaluate_only, train_and_evaluate

_MNIST = str(Path(__file__).with_name("mnist.py"))  # of a command without --config
_RESUMES = "the same command resumes from the last checkpoint"
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "config file, with :arguments, such as experiments/mnist.py:bits=32; default MNIST, 64 bits. "
    "--config.FIELD=VALUE changes a field, with or without it",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "run directory; default runs/<config>/…/seed<k>")
_CACHE = flags.DEFINE_string(
    "cache", None, "ground truth and graph, to share between runs; default <workdir>/data"
)
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "train, or evaluate a checkpoint")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "for --mode=eval: best, latest or a step; default best"
)


@parallel.default_settings()
def main(argv: list[str]) -> None:
    """Runs one experiment; raises BadInput or NonFinite."""
    for flag in (_WORKDIR, _CACHE, _CHECKPOINT):
        if flag.value == "":
            raise BadInput(f"--{flag.name}: is empty; give a value, or leave it out")
    if _CHECKPOINT.value is not None and _MODE.value != "eval":
        raise BadInput(f"--checkpoint={_CHECKPOINT.value}: is of --mode=eval; leave it out")
    if len(argv) > 1:
        raise BadInput(f"unexpected argument {argv[1]!r}; fields are set by --config.field=value")
    logging.set_verbosity(logging.WARNING)  # orbax tells of every file
    config = _CONFIG.value
    experiment = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    for name in overrides:
        check_field(name)
    workdir = _WORKDIR.value or rundir.run_directory(config, experiment, overrides)
    workdir = Path(os.path.expanduser(workdir))
    hosts.join(config.distributed)
    if hosts.first():
        devices, kind = len(parallel.all_devices()), jax.devices()[0].device_kind
        n, backend = jax.process_count(), jax.default_backend()
        among = f" of {n} processes" if n > 1 else ""
        print(f"{devices} x {kind} ({backend}){among}, run in {workdir}", flush=True)
    cache = Path(os.path.expanduser(_CACHE.value or workdir / "data"))
    if _MODE.value == "train":
        train_and_evaluate(config, workdir, cache)
    else:
        evaluate_only(config, workdir, cache, _CHECKPOINT.value or "best")
    hosts.leave()


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags and loads the experiment file; whatever is wrong with them is a BadInput.

    `config_flags` runs the file here, after it was run once to tell what is wrong with it, and
    reports an unknown field by its bare name.
    """
    try:
        given, (program, *rest) = _given_config(argv), argv
        if given is None:  # fields can be set after --config
            rest = [f"--config={_MNIST}", *rest]
        else:
            file, colon, arguments = given.partition(":")
            config_file.config_of(config_file.load(file), *([arguments] if colon else []))
        return flags.FLAGS([program, *rest])
    except BadInput:
        raise
    except (AttributeError, KeyError) as e:
        # the message was quoted once or twice on its way
        name = str(e).replace("\\n", ". ").replace("\\", "").replace("'", "").strip('"')
        raise BadInput(
            f"--config: no such field: {name}; the fields are in sigah_jax/config.py"
        ) from e
    except (flags.Error, TypeError, ValueError, OSError) as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        reason = lines[-1].rpartition("Error: ")[2]
        raise BadInput(f"flags: {reason}") from e


def _given_config(argv: list[str]) -> str | None:
    """The value of --config, which `config_flags` would not give before it has run the file."""
    alone = flags.FlagValues()
    flags.DEFINE_string("config", None, "", flag_values=alone)
    alone(argv, known_only=True)
    return alone.config


def run(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code.

    0; 2 bad input; 3 a loss not finite; 75 another process was lost; 130 Ctrl-C; 143 SIGTERM,
    state saved.
    """
    interrupts.say(_RESUMES)
    try:
        app.run(main, argv=argv, flags_parser=parse_flags)
    except SystemExit as e:
        return hosts.quit_with(e.code) if e.code else 0
    except KeyboardInterrupt:  # of a caller that did not `interrupts.begin`
        print(f"interrupted; {_RESUMES}", file=sys.stderr)
        return hosts.quit_with(interrupts.CODES[signal.SIGINT])
    except Exception as e:
        if (code := tell(e)) is not None:
            return hosts.quit_with(code)
        line = hosts.lost(e)
        print(f"error: {line}" if line else traceback.format_exc(), file=sys.stderr)
        return hosts.quit_with(hosts.LOST if line else 1)
    return 0


if __name__ == "__main__":
    sys.exit(run())
