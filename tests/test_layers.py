"""Imports flow one way: what lies left in the data flow never imports what lies right."""

import ast
import importlib
from pathlib import Path

import pytest

import spatiagraph

ROOT = Path(spatiagraph.__file__).parent
LAYERS = [
    {"data", "graph", "kernels", "flow", "clustering"},
    {"nn"},
    {"models", "heads", "losses", "pairing"},
    {"tasks", "evaluate", "retrieval"},
    {"training"},
    {"inference"},
    {"plot", "report"},
    {"cli"},
]
# import nothing of ours, anyone imports them
SHARED = {
    "keys",
    "_config",
    "_files",
    "_heaps",
    "_json",
    "_optional",
    "_reasons",
    "_savable",
    "_shipped",
    "_typed",
    "_tables",
    "_walk",
    "_walked",
    "testing",
}
ALONE = {"graph", "kernels", "flow", "clustering"}  # import nothing of ours but the shared leaves
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(path):
    """Sub-package, or top-level module, that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def is_type_checking(node):
    name = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, "id", "")
    return name == "TYPE_CHECKING"


def imports(node, package, with_names=False):
    """All modules that a file imports when it runs, also inside functions.

    ``with_names`` tells the names taken from a module too: they may be modules themselves.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and is_type_checking(child):
            for other in child.orelse:
                yield from imports(other, package, with_names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                base = ".".join([*package.split(".")[: 1 - child.level or None], base]).rstrip(".")
            if base == "spatiagraph" or with_names:
                yield from (f"{base}.{alias.name}" for alias in child.names)
            else:
                yield base
        else:
            yield from imports(child, package, with_names)


def arrows(path):
    """Units of ours that a file imports, without its own."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path.parent / "x")
    package = package.removesuffix(".x")
    names = imports(ast.parse(path.read_text(encoding="utf-8")), package)
    units = {name.split(".")[1] for name in names if name.startswith("spatiagraph.")}
    return units - {unit(path), "__version__"}


def modules_imported(path):
    """Modules of ours that a file imports; ``from package import module`` counts as the module."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path.parent / "x")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = {module_name(path) for path in FILES}
    found = set()
    for name in imports(tree, package.removesuffix(".x"), with_names=True):
        found.add(name if name in known else name.rpartition(".")[0])
    return found


def circle(graph):
    """What is left of a graph after all that imports nothing of the rest has been taken away."""
    graph = dict(graph)
    while graph:
        free = {name for name, targets in graph.items() if not targets & graph.keys()}
        if not free:
            return sorted(graph)
        graph = {name: targets for name, targets in graph.items() if name not in free}
    return []


def complaint(source, target):
    """Why this unit may not import that one; ``None`` if it may."""
    if target in SHARED:
        return None
    if source in SHARED:
        return f"{source} is shared by all and imports nothing of ours, but imports {target}"
    if target not in RANK:
        return f"{target} has no place in the layers; {source} imports it"
    if source in ALONE:
        return f"{source} stands alone, but imports {target}"
    if RANK[target] > RANK[source]:
        return f"{source} imports {target}, which comes later in the data flow"
    return None


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_left(path):
    if path == ROOT / "__init__.py":
        assert not arrows(path)
        return
    assert unit(path) in RANK.keys() | SHARED, f"{unit(path)} has no place in the layers"
    complaints = [complaint(unit(path), target) for target in sorted(arrows(path))]
    assert not [text for text in complaints if text]


def test_units_import_each_other_in_no_circle():
    graph = {}
    for path in FILES:
        if path.parent != ROOT or path.stem in RANK:
            graph.setdefault(unit(path), set()).update(arrows(path))
    assert not circle(graph)


@pytest.mark.parametrize("room", sorted({unit(path) for path in FILES}))
def test_files_of_a_room_import_each_other_in_no_circle(room):
    known = {module_name(path) for path in FILES if unit(path) == room}
    assert not circle(
        {
            module_name(path): modules_imported(path) & known - {module_name(path)}
            for path in FILES
            if unit(path) == room
        }
    )


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_imports(path):
    importlib.import_module(module_name(path))


@pytest.mark.parametrize(
    ("source", "target"),
    [("nn", "models"), ("kernels", "graph"), ("keys", "data"), ("data", "nn"), ("nn", "stray")],
)
def test_an_arrow_that_points_back_is_caught(source, target):
    assert complaint(source, target)


def test_a_circle_is_caught():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert not circle({"a": {"b"}, "b": set()})


def test_imports_inside_functions_count_and_type_checking_blocks_do_not():
    code = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from spatiagraph.cli import app
def f():
    import spatiagraph.plot
    from spatiagraph import report
    from . import sibling
    from ..nn import pool
"""
    found = set(imports(ast.parse(code), "spatiagraph.data"))
    ours = {name for name in found if name.startswith("spatiagraph")}
    assert ours == {"spatiagraph.plot", "spatiagraph.report", "spatiagraph.data", "spatiagraph.nn"}
