"""Where data sets lie on disk.

Not responsible for what lies there: `sources` names the files, `download` gets them.
"""

import os
from pathlib import Path

from sigah_jax.errors import BadInput
from sigah_jax.files import whole


def data_directory(given: str = "") -> Path:
    """The directory of all data sets: `given`, else `$SIGAH_DATA`, else `~/.cache/sigah_jax`.

    Args:
        given: `config.data.dir` or `--dir`; empty: not given. `~` is expanded.

    Returns:
        A path that need not exist.

    Raises:
        BadInput: it is a bucket, or a home directory is needed and not known.
    """
    chosen = given or os.environ.get("SIGAH_DATA", "") or "~/.cache/sigah_jax"
    try:
        path = Path(chosen).expanduser()
    except RuntimeError as e:
        raise BadInput(
            f"data directory {chosen}: no home directory is known; give --dir or set $SIGAH_DATA"
        ) from e
    whole.check_on_disk(path)
    return path
