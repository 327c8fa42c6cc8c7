"""README.md, docs/ and docstrings of commands: links lead somewhere, commands parse, snippets run.

A comment before a block says how it is checked. `<!-- run: NAME -->`: it is run here, in a
directory with an encoder and its files. `<!-- recipe: NAME -->`: test_stores_recipes runs it.
Without either, Python compiles and its names exist, and a command goes through the parser of its
module; `<!-- not run: REASON -->` is for readers.
"""

import argparse
import ast
import functools
import importlib
import inspect
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from absl import flags

import sigah_jax
from experiments import api
from sigah_jax import __main__ as console
from sigah_jax import export
from sigah_jax.config import fields_of, get_config
from sigah_jax.config_checks import validate
from sigah_jax.data import mnist
from sigah_jax.encode import encode_file
from sigah_jax.errors import BadInput
from tests import hashers

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


class Block(NamedTuple):
    """A block of code on a page."""

    page: str
    mark: str  # the comment before it, such as "run: onnx"
    language: str  # "" where it is indented or says none
    text: str


def blocks(page: str, text: str) -> Iterator[Block]:
    """Fenced blocks, and indented ones after an empty line."""
    mark = r"(?:<!-- ([^\n]*) -->\n)?"
    fenced = re.compile(mark + r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    for found in fenced.finditer(text):
        yield Block(page, found[1] or "", found[2], found[3])
    indented = re.compile(mark + r"\n((?: {4}.*\n|\n)*(?: {4}.*\n))", re.MULTILINE)
    for found in indented.finditer(fenced.sub("", text)):
        code = re.sub("^    ", "", found[2], flags=re.MULTILINE)
        yield Block(page, found[1] or "", "python" if is_python(code) else "", code)


def is_python(code: str) -> bool:
    try:
        return any(isinstance(node, ast.Import | ast.Assign) for node in ast.parse(code).body)
    except SyntaxError:
        return False


def commands(text: str) -> list[str]:
    """The lines of a block of commands, continued ones joined, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].removeprefix("$ ").strip() for line in lines if line.strip()]


MODULES = [p for top in ("sigah_jax", "experiments", "launch") for p in (ROOT / top).glob("*.py")]
BLOCKS = [block for page in PAGES for block in blocks(page.name, page.read_text("utf-8"))]
BLOCKS += [
    block
    for path in sorted(MODULES)
    for block in blocks(path.name, f"{ast.get_docstring(ast.parse(path.read_text())) or ''}\n")
]
PYTHON = [b for b in BLOCKS if b.language == "python"]
SHELL = [b for b in BLOCKS if b.language in ("", "bash", "sh")]
RUN = [b for b in PYTHON if b.mark.startswith("run:")]
ONLY_READ = [b for b in PYTHON if not b.mark.startswith(("run:", "recipe:"))]
CALLS = [  # (page, module, arguments)
    (b.page, found[1] or found[2], found[3])
    for b in SHELL
    for line in commands(b.text)
    if (found := re.search(r"(?:python -m ([\w.]+)|^sigah (\w+))(.*)", line))
]


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub("`[^`]*`", "", prose(page))):
        if re.match("https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_rows_of_a_table_have_the_cells_of_its_header(page):
    for table in re.findall(r"^\|.*\n\|[ :|-]+\n(?:\|.*\n)*", prose(page), re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(counts) == 1, table.splitlines()[0]


def test_the_index_names_every_page_and_each_says_whom_it_is_for():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name
        first = page.read_text().split("\n\n")[1]
        assert re.match(r"(This (page|index) is for|For) ", first), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_the_text_exist(page):
    text, fields = page.read_text("utf-8"), fields_of(get_config())
    for field in re.findall(r"--config\.([\w.]*\w)=", text):
        assert field == "field" or field in fields, field
    for extra in re.findall(r"pip install [^\n]*'?\.\[([\w,]+)\]", text):
        assert set(extra.split(",")) <= set(EXTRAS), extra
    for module in re.findall(r"`python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module), module
    if page.name in ("research-log.md", "CHANGELOG.md"):  # which tell of what was
        return
    for path in re.findall(r"\b(?:launch|experiments|sigah_jax|tests|results)/[\w/.]*\w", text):
        assert (ROOT / path).exists(), path


def test_the_pages_hold_commands_of_every_kind():
    modules = {module for _, module, _ in CALLS}
    assert {"sigah_jax.main", "sigah_jax.encode", "launch.sweep", "experiments.speed"} <= modules


def test_a_config_file_opens_with_its_command_and_what_to_expect():
    files = [path for path in MODULES if path.parent.name == "experiments"]
    configs = [path for path in files if "\ndef sweep" in path.read_text("utf-8")]
    assert len(configs) >= 6
    for path in configs:
        told = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert f"python -m sigah_jax.main --config=experiments/{path.name}" in told, path.name
        assert "\nExpected" in told, path.name


class Parsed(Exception):
    """A parser took its arguments; what it did not know is in `args[0]`."""


@pytest.mark.parametrize("page, name, line", CALLS, ids=lambda value: value[:60])
def test_a_command_names_a_module_and_flags_that_it_knows(page, name, line, monkeypatch):
    check_command(name, line, monkeypatch)


@pytest.mark.parametrize("name", sorted(set(console.COMMANDS) - {"train"}))
def test_the_examples_of_help_are_commands(name, monkeypatch):
    check_command(name, console.COMMANDS[name].example, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "sigah_jax.search --codes=c.npy --queries=q.npy --k=ten --output=near.npz",
        "sigah_jax.measure --inputs=x.npy --bits=64",
        "launch.sweep --config=experiments/mnist.py --config.optim.lr=1",
        "sigah_jax.main --config=experiments/mnist.py --config.optim.lr=1",
        "sigah_jax.main --config=experiments/mnist.py --config.train.steps=1.5",
    ],
)
def test_a_wrong_flag_is_found(line, monkeypatch):
    with pytest.raises((AssertionError, BadInput, SystemExit)):
        check_command(*line.split(" ", 1), monkeypatch)


def check_command(name: str, line: str, monkeypatch) -> None:
    """Gives the arguments of a command to its own parser, and runs nothing.

    Args:
        name: a module, or a subcommand of `sigah`.
    """
    monkeypatch.chdir(ROOT)
    module, _, function = console.COMMANDS.get(name, (name, ""))[0].partition(":")
    module = module if "." in name else f"sigah_jax.{module}"
    line = re.sub(r"\[(--[^]]*)\]", r"\1", line)  # what may be left out
    argv = [word for word in shlex.split(line) if word != "…"]
    monkeypatch.setattr(sys, "argv", [name, *argv])
    if module == "sigah_jax.main":
        return check_train(argv)
    known = argparse.ArgumentParser.parse_known_args

    def stop(self, args=None, namespace=None):
        try:
            rest = known(self, args, namespace)[1]
        except BadInput as e:  # of which a command would make a line
            raise AssertionError(e) from e
        raise Parsed(rest)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    imported = importlib.import_module(module)
    function = function or ("main" if hasattr(imported, "main") else "run")
    with pytest.raises(Parsed) as parsed:
        getattr(imported, function)()
    fields = fields_of(get_config())
    for flag in parsed.value.args[0]:
        assert module == "launch.sweep" and flag.partition("=")[0][9:] in fields, flag


def check_train(argv: list[str]) -> None:
    """The flags of `sigah_jax.main`, and the config that they make."""
    main = importlib.import_module("sigah_jax.main")
    flags.FLAGS.unparse_flags()
    for name in [flag for flag in flags.FLAGS if flag.startswith("config.")]:
        delattr(flags.FLAGS, name)  # of the command before
    main.parse_flags(["main", *argv])
    config = flags.FLAGS.config
    config.data.base = config.data.base or "my.npy" if config.data.name == "vectors" else ""
    validate(config, 1)


def test_names_that_do_not_exist_are_found():
    good = "import sigah_jax\nh = sigah_jax.load('x')\nh.encode(x, refine=0)\n"
    check_names(good)
    for wrong in ("encod(x)", "encode(x, refined=0)"):
        with pytest.raises((AssertionError, AttributeError)):
            check_names(good.replace("encode(x, refine=0)", wrong))
    for line in ("import sigah_jay", "from sigah_jax.retrieval import reranks"):
        with pytest.raises((AssertionError, ImportError)):
            check_names(line)


@pytest.mark.parametrize("block", ONLY_READ, ids=lambda b: b.page)
def test_a_snippet_compiles_and_its_names_exist(block):
    check_names(block.text)


def check_names(code: str) -> None:
    """Imports what a snippet imports, and binds the keywords of its calls of the package."""
    owners = {"sigah_jax": sigah_jax}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                assert hasattr(module, alias.name) or importlib.util.find_spec(inside), alias.name
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = ast.unparse(node.value.func) in ("sigah_jax.fit", "sigah_jax.load")
            owners |= {ast.unparse(node.targets[0]): sigah_jax.Hasher} if made else {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = owners.get(ast.unparse(node.func.value))
            if owner:
                known = inspect.signature(getattr(owner, node.func.attr)).parameters
                assert {keyword.arg for keyword in node.keywords} <= set(known), ast.unparse(node)


@functools.cache
def trained() -> sigah_jax.Hasher:
    return hashers.untrained(32, 20)


@pytest.mark.parametrize("block", RUN, ids=lambda b: f"{b.page} {b.mark}")
def test_a_snippet_runs(block, tmp_path, monkeypatch):
    h, rng = trained(), np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, rows in (("base", 300), ("queries", 30)):
        np.save(f"{name}.npy", rng.standard_normal((rows, h.d)).astype(np.float32))
    h.save("encoder.npz")
    encode_file(h, "base.npy", Path("codes.npy"), overwrite=False, skip_bad=False)
    if "onnx" in block.text:
        pytest.importorskip("onnxruntime", reason="pip install -e '.[serve]'")
        export.export(h, Path("encoder.onnx"), overwrite=False)
    if "stablehlo" in block.text:
        export.export(h, Path("encoder.stablehlo"), overwrite=False)
    shutil.copy(ROOT / "sigah_jax" / "encoder" / "numpy_encoder.py", tmp_path)
    space = {}
    exec(compile(block.text, f"{block.page}: {block.mark}", "exec"), space)
    if "query_codes" in space:
        differ = np.asarray(space["query_codes"]) != h.encode_queries(np.load("queries.npy"))
        assert differ.mean() < 0.01


def test_the_snippet_that_trains_runs_without_its_training(monkeypatch):
    (block,) = (b for b in PYTHON if b.page == "README.md" and "sigah_jax.fit(" in b.text)
    images = mnist.load_images()[:2300]
    monkeypatch.setattr(mnist, "load_images", lambda: images)
    monkeypatch.setattr(sigah_jax, "fit", lambda x, bits, **_: hashers.untrained_for(x, bits))
    space = {}
    exec(compile(block.text, "README.md", "exec"), space)
    found, x = space["ids"], images.astype(np.float32)
    assert found.shape == (1000, 10) and space["codes"].shape == (1300, space["h"].bits // 8)
    apart = ((x[:1000, None] - x[1000:][found]) ** 2).sum(axis=2)  # what ranks at last
    np.testing.assert_allclose(space["distances"], apart, rtol=1e-4)
    assert (np.diff(space["distances"], axis=1) >= 0).all()


def test_the_api_page_is_that_of_the_docstrings(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert api.PAGE.read_text("utf-8") == api.page(), "run python -m experiments.api"
