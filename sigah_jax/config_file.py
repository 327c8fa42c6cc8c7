"""A config file: a Python file of the user's that makes a config.

Not responsible for the fields of a config and what they may hold (`config`, `config_checks`).
"""

import contextlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from ml_collections import config_dict

from sigah_jax import config as base
from sigah_jax.errors import BadInput


def load(file: str) -> ModuleType:
    """The module of a config file; BadInput if it cannot be run or has no `get_config`."""
    spec = importlib.util.spec_from_file_location(f"_sigah_config_{Path(file).stem}", file)
    if spec is None or not Path(file).is_file():
        raise BadInput(f"--config={file}: no such Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # as dataclasses need
    with telling(file, "cannot be loaded"):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise BadInput(
            f"--config={file}: has no get_config(arguments); experiments/mnist.py shows one"
        )
    return module


def config_of(module: ModuleType, *arguments: str) -> config_dict.ConfigDict:
    """What `get_config` of a config file returns.

    Args:
        module: see `load`.
        arguments: the text after the colon of `--config=FILE:`, if there is one.

    Raises:
        BadInput: it cannot be run, or what it returns has not the fields of `config.get_config`.
    """
    file = module.__file__
    with telling(file, "get_config failed"):
        config = module.get_config(*arguments)
    remedy = "let get_config begin with the config that sigah_jax.config.get_config returns"
    if not isinstance(config, config_dict.ConfigDict):
        kind = type(config).__name__
        raise BadInput(f"--config={file}: get_config returned {kind}; {remedy}")
    ours, theirs = base.fields_of(base.get_config()), base.fields_of(config)
    for field in ours | theirs:
        if field not in theirs:
            raise BadInput(f"--config={file}: its config lacks the field {field}; {remedy}")
        if field not in ours:
            raise BadInput(
                f"--config={file}: config.{field}: no such field; the fields are in "
                "sigah_jax/config.py"
            )
    return config


@contextlib.contextmanager
def telling(file: str, what: str) -> Iterator[None]:
    """Whatever the user's file may raise, as a BadInput that names the line."""
    try:
        yield
    except BadInput:  # of an argument of `get_config`
        raise
    except Exception as e:
        tb, path = traceback.extract_tb(e.__traceback__), os.path.abspath(file)
        frames = [f.lineno for f in tb if f.filename == path]
        line = e.lineno if isinstance(e, SyntaxError) else frames[-1] if frames else None
        at = f" in line {line}" if line else ""
        reason = " ".join(f"{type(e).__name__}: {e}".split())
        raise BadInput(f"--config={file}: {what}{at} ({reason})") from e
