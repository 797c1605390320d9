"""First lines of docstrings are nouns or verbs, in the field's terms."""

import ast
import re
from pathlib import Path

import pytest

import spatiagraph

ROOT = Path(spatiagraph.__file__).parent
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
OWN = "modules of its own"
CLAUSES = {"what", "which", "where", "when", "how", "whether", "why", "who"}
EVERYDAY = re.compile(  # condition, sample, evaluate, split, step, concatenate, sorted, remaining
    r"\b(told|tells?|(un)?asked|asks?|deals?|dealt|visits?|visited|portions?|rising|joins?|joined"
    r"|alone|company|the others)\b",
    re.IGNORECASE,
)

THIRD_PERSON = re.compile(  # a class is a noun, a function an imperative; Sets of genes are a noun
    r"(\w*[^\Ws]s (the|an?|any|every|its?|up)"
    r"|adds|builds|computes|creates|decodes|keeps|makes|opens|removes|replaces|says|takes|trains"
    r"|writes)\b|.*\bshould\b",
    re.IGNORECASE,
)


def first_lines(node: ast.AST, where: str) -> list[tuple[str, str]]:
    """Name and first line of all that has a docstring and no private name, constants included."""
    found = []
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        text = ast.get_docstring(node)
        found += [(where, text.splitlines()[0])] if text else []
        for child in node.body:
            name = getattr(child, "name", "")
            if name and not name.startswith("_"):
                found += first_lines(child, f"{where}.{name}")
        for child, after in zip(node.body, node.body[1:], strict=False):
            if isinstance(child, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                text = after.value.value if isinstance(after.value, ast.Constant) else None
                target = child.targets[0] if isinstance(child, ast.Assign) else child.target
                if isinstance(text, str) and not ast.unparse(target).startswith("_"):
                    found.append((f"{where}.{ast.unparse(target)}", text.splitlines()[0]))
    return found


def clauses(lines: list[tuple[str, str]]) -> list[str]:
    return [f"{where}: {line}" for where, line in lines if line.split()[0].lower() in CLAUSES]


def everyday(lines: list[tuple[str, str]]) -> list[str]:
    return [f"{where}: {line}" for where, line in lines if EVERYDAY.search(line)]


def third_person(lines: list[tuple[str, str]]) -> list[str]:
    return [f"{where}: {line}" for where, line in lines if THIRD_PERSON.match(line)]


@pytest.mark.parametrize("room", [OWN, *ROOMS])
def test_first_lines_name_the_thing_in_terms_of_the_field(room):
    lines = []
    for path in sorted(ROOT.glob("*.py") if room == OWN else (ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines += first_lines(tree, str(path.relative_to(ROOT)))
    assert len(lines) > 5
    assert not clauses(lines)
    assert not everyday(lines)
    assert not third_person(lines)


def test_a_clause_is_caught():
    code = '"""How it is."""\nclass A:\n    """Which one."""\n    def f(self):\n        """Noun."""'
    lines = first_lines(ast.parse(code + '\nB = 1\n"""What it tells."""\nC = 2\n"""Noun."""'), "x")
    assert [where for where, _ in lines] == ["x", "x.A", "x.A.f", "x.B", "x.C"]
    assert len(clauses(lines)) == 3
    assert len(everyday(lines)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "Keeps the best weights.",
        "Trains any task.",
        "Sets the epoch.",
        "Opens TIFF in all its kinds.",
        "Looks up a condition.",
        "A cell should be the same in both passes.",
    ],
)
def test_a_verb_in_the_third_person_is_caught(line):
    assert third_person([("x", line)])


@pytest.mark.parametrize(
    "line",
    ["Sets of genes.", "Weights of the best score.", "Cells all around.", "Process a slide."],
)
def test_a_plural_and_an_imperative_are_let_through(line):
    assert not third_person([("x", line)])
