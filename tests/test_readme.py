"""What README and docs say works: Python blocks run, command lines parse, links lead somewhere."""

import ast
import importlib
import inspect
import re
import shlex
import warnings
from pathlib import Path

import pytest
import typer

import spatiagraph as sg
from spatiagraph.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[\w-]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [
        code for name, code in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language
    ]


def with_blocks(language: str) -> list:
    return [pytest.param(page, id=page.name) for page in PAGES if blocks(page, language)]


def commands(page: Path) -> list[list[str]]:
    """Arguments of every call of ``spatiagraph`` in the page's shell blocks."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    calls = []
    for line in lines:
        words = shlex.split(line, comments=True)
        starts = [i for i, word in enumerate(words) if Path(word).name == "spatiagraph"]
        if starts:
            calls.append(words[starts[-1] + 1 :])
    return calls


def parse(arguments: list[str]) -> str:
    """Name of the command that takes these arguments; raises what the user would be told."""
    group = typer.main.get_command(app)
    context = group.make_context("spatiagraph", list(arguments))
    name, command, rest = group.resolve_command(context, arguments)
    command.make_context(name, rest, parent=context)
    return name


def import_others(page: Path) -> None:
    """Load what a page uses beside us; how they warn on import is their affair."""
    with warnings.catch_warnings(action="ignore"):
        for name in ("squidpy", "scanpy"):
            if any(f"import {name} " in code for code in blocks(page, "python")):
                importlib.import_module(name)


@pytest.mark.usefixtures("without_umap")
@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_on_the_page_runs(page, tmp_path, monkeypatch):
    import_others(page)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{page.name}, block {number + 1}", "exec"), names)


def messages() -> str:
    """Every text of the package, with … for what is filled in, one per line."""
    texts = []
    for path in sorted((ROOT / "spatiagraph").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                texts.append("".join(map(str, parts)))
    return "\n".join(texts)


def test_errors_on_the_page_are_those_of_the_library():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    known = messages()
    unknown = []
    for message in quoted:
        parts = [re.escape(part) for part in message.split("…")]
        if not re.search("^" + "[^\n]*?".join(parts), known, re.MULTILINE):
            unknown.append(message)
    assert len(quoted) > 15
    assert not unknown


@pytest.mark.parametrize("page", with_blocks("bash"))
def test_commands_on_the_page_exist_with_these_options(page):
    for arguments in commands(page):
        parse(arguments)


def test_the_readme_shows_every_command():
    shown = {parse(arguments) for arguments in commands(ROOT / "README.md")}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in typer.main.get_command(app).commands:
        assert name in shown or f"spatiagraph {name}" in text


@pytest.mark.parametrize("arguments", [["fitt"], ["fit", "a.h5ad"], ["doctor", "--colour", "red"]])
def test_a_command_that_does_not_exist_would_be_noticed(arguments):
    with pytest.raises(Exception, match="No such|Missing"):
        parse(arguments)


def test_the_readme_runs_in_twelve_lines():
    (code,) = blocks(ROOT / "README.md", "python")
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page):
    targets = [t for t in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in t]
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_every_sub_package_is_in_the_reference():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    packages = [name for name in sg.__all__ if inspect.ismodule(getattr(sg, name))]
    assert not [name for name in packages if f"spatiagraph.{name}\n" not in page]
