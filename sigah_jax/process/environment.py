"""JAX's environment variables: a command says in one line which of them JAX refuses.

Imports nothing heavy unless one is set. Not responsible for devices that are missing (`parallel`).
"""

import os
import re
import sys


def check() -> None:
    """Ends the process with one line and exit code 2 if JAX refuses the value of a variable."""
    if not any(name.startswith("JAX_") for name in os.environ):
        return
    try:
        import jax  # noqa: F401
    except ValueError as e:
        flag = re.search("jax_[a-z0-9_]+", str(e), re.I)
        if not flag:
            raise
        name = flag[0].upper()
        print(
            f"error: {name}={os.environ.get(name)}: JAX refuses this value of the environment "
            "variable; correct it, or unset it",
            file=sys.stderr,
        )
        sys.exit(2)
