"""Generated tables inside a Markdown file.

A table stands between `<!-- table: mnist 64 -->` and `<!-- end -->`: data set and code length.
Nobody edits what is between the two lines.

Not responsible for what a table holds: `comparison`.
"""

import re
from collections.abc import Callable

_TABLE = re.compile(r"(<!-- table: (\S+) (\d+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, table: Callable[[str, int], str]) -> str:
    """`text` with each table written anew by `table(data set, bits)`."""
    return _TABLE.sub(lambda m: f"{m[1]}{table(m[2], int(m[3]))}\n{m[4]}", text)
