"""Modules import downwards only: no circle, and no arrow up in the order of layers.

Imports are read from the source, those inside functions too.
"""

import ast
import graphlib
from pathlib import Path

import pytest

import sigah_jax

ROOT = Path(sigah_jax.__file__).parent.parent
# top to bottom; "commands" are the modules of sigah_jax/ itself that have no layer of their own
LAYERS = [
    "experiments",
    "launch",
    "commands",
    "training",
    "report",
    "run",
    "encoder",
    "config_checks",
    "config",
    "data",
    "baselines",
    "model",
    "retrieval",
    "devices",
    "formats",
    "files",
    "command_line",
    "errors",
    "process",
]


def sources() -> dict[str, ast.Module]:
    """The source of every module by its dotted name; a package's is that of its `__init__`."""
    found = {}
    for top in ("sigah_jax", "experiments", "launch"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            found[name] = ast.parse(path.read_text(), str(path))
    return found


def imports(tree: ast.Module, modules: set[str]) -> set[str]:
    """The modules among `modules` that a source imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"relative import of {node.module}: name the package"
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                names.add(member if member in modules else node.module)
    return names & modules


def layer(module: str) -> str:
    top, *rest = module.split(".")
    if top != "sigah_jax":
        return top
    return rest[0] if len(rest) > 1 or (rest and rest[0] in LAYERS) else "commands"


def arrows(found: dict[str, ast.Module]) -> dict[str, set[str]]:
    return {module: imports(tree, found.keys()) for module, tree in found.items()}


def upward(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{module} -> {target}"
        for module, targets in graph.items()
        for target in sorted(targets)
        if LAYERS.index(layer(target)) < LAYERS.index(layer(module))
    ]


def test_a_made_up_arrow_up_and_a_circle_are_found():
    texts = {
        "sigah_jax.files.one": "def f():\n    from sigah_jax.run import two\n",
        "sigah_jax.run.two": "import sigah_jax.run.three\n",
        "sigah_jax.run.three": "from sigah_jax.run.two import name\n",
        "sigah_jax.search": "from sigah_jax import encode\nimport numpy\n",
        "sigah_jax.encode": "",
    }
    graph = arrows({name: ast.parse(text) for name, text in texts.items()})
    assert graph["sigah_jax.search"] == {"sigah_jax.encode"}
    assert upward(graph) == ["sigah_jax.files.one -> sigah_jax.run.two"]
    with pytest.raises(graphlib.CycleError) as caught:
        graphlib.TopologicalSorter(graph).prepare()
    assert set(caught.value.args[1]) == {"sigah_jax.run.two", "sigah_jax.run.three"}


def test_every_module_has_a_layer_and_every_layer_a_module():
    assert {layer(module) for module in sources()} == set(LAYERS)


def test_modules_import_without_a_circle():
    graphlib.TopologicalSorter(arrows(sources())).prepare()


def test_no_arrow_points_up():
    assert upward(arrows(sources())) == []
