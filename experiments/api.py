"""Makes docs/api.md from the source: python -m experiments.api [--check]"""

import ast
import sys
import textwrap
from pathlib import Path

from sigah_jax.command_line import Parser, command
from sigah_jax.files import whole

PAGE = Path("docs/api.md")
INTRO = """\
# API

This page is for someone who calls the package from Python and needs a signature, a shape or an
error. It is made from the docstrings by `python -m experiments.api`; a test fails when it is old.
First come the names that `import sigah_jax` has, then functions of its modules: arrays in, arrays
out. Shapes: n rows, d columns, Q queries, N base rows, k neighbours, K bits, W packed bytes.
"""
FRONT = """fitting.fit run.loading.load encoder.searching.search encoder.radius.range_search
encoder.hasher.Hasher errors.BadInput"""
OTHERS = """retrieval.codes.pack retrieval.codes.unpack retrieval.hamming.search
retrieval.both.search retrieval.both.distances retrieval.asymmetric.by_projection
retrieval.asymmetric.by_feature retrieval.rerank.rerank retrieval.metric.base_rows
retrieval.metric.queries_of retrieval.euclidean.knn
retrieval.neighbours.nearest_sets retrieval.histograms.distance_histograms retrieval.metrics.summary
retrieval.metrics.by_query retrieval.metrics.pr_curve model.binarize.straight_through
model.sparse.ista model.losses.ordinal model.rotation.rotate encoder.numpy_encoder.encode
encoder.numpy_encoder.encode_queries"""


def entry(name: str, node: ast.stmt) -> str:
    """The section of a function or class: its signature and docstring, and its public methods."""
    signature, methods = node.name, []
    if isinstance(node, ast.ClassDef):
        methods = [m for m in node.body if getattr(m, "name", "_")[0] != "_"]
    elif not any("property" in ast.unparse(d) for d in node.decorator_list):
        signature += f"({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
    signature = textwrap.fill(signature, 96, subsequent_indent="    ", break_long_words=False)
    text = f"## {name}\n\n```text\n{signature}\n\n{ast.get_docstring(node)}\n```\n"
    return "\n".join([text, *(entry(f"{node.name}.{m.name}", m) for m in methods)])


def page() -> str:
    """The text of docs/api.md."""
    parts = [INTRO]
    for name in f"{FRONT} {OTHERS}".split():
        module, _, member = name.rpartition(".")
        path = Path("sigah_jax", *module.split(".")).with_suffix(".py")
        body = ast.parse(path.read_text("utf-8")).body
        (node,) = (node for node in body if getattr(node, "name", "") == member)
        parts.append(entry(f"sigah_jax.{member if name in FRONT.split() else name}", node))
    return "\n".join(parts)


@command("the page stays as it was")
def main() -> int:
    """Returns the exit code: 0, 1 if the page is old, 2 bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it is old")
    if not parser.parse_args().check:
        whole.write_text(PAGE, page())
        return 0
    return int(PAGE.read_text("utf-8") != page())


if __name__ == "__main__":
    sys.exit(main())
