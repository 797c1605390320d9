"""First lines of docstrings are nouns or verbs in the field's terms, not subordinate clauses."""

import ast
from pathlib import Path

import pytest

import spatiagraph

ROOT = Path(spatiagraph.__file__).parent
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
CLAUSES = {"what", "which", "where", "when", "how", "whether", "why", "who"}


def first_lines(node: ast.AST, where: str) -> list[tuple[str, str]]:
    """Name and first line of all that has a docstring and no private name."""
    found = []
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        text = ast.get_docstring(node)
        found += [(where, text.splitlines()[0])] if text else []
        for child in node.body:
            name = getattr(child, "name", "")
            if name and not name.startswith("_"):
                found += first_lines(child, f"{where}.{name}")
    return found


def clauses(lines: list[tuple[str, str]]) -> list[str]:
    return [f"{where}: {line}" for where, line in lines if line.split()[0].lower() in CLAUSES]


@pytest.mark.parametrize("room", ROOMS)
def test_first_lines_name_the_thing(room):
    lines = []
    for path in sorted((ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines += first_lines(tree, str(path.relative_to(ROOT)))
    assert len(lines) > 5
    assert not clauses(lines)


def test_a_clause_is_caught():
    code = '"""How it is."""\nclass A:\n    """Which one."""\n    def f(self):\n        """Noun."""'
    lines = first_lines(ast.parse(code), "x")
    assert len(clauses(lines)) == 2
