"""Generated tables inside a Markdown file.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. Nobody edits what is between the
two lines.

Not responsible for what a table holds: `comparison`.
"""

import re
from collections.abc import Callable

_TABLE = re.compile(r"(<!-- table: ([^\n]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, table: Callable[[str], str]) -> str:
    """`text` with each table written anew by `table(NAME)`."""
    return _TABLE.sub(lambda m: f"{m[1]}{table(m[2])}\n{m[3]}", text)
