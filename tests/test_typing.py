"""The front door is typed: what people reach through the package, type checkers see too."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spatiagraph

ROOT = Path(spatiagraph.__file__).parent
PACKAGES = ["spatiagraph"] + [
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "spatiagraph.")
    if module.ispkg and module.name != "spatiagraph.cli"
]


def revealed(lines: list[str], folder: Path) -> str:
    """Report of mypy on a few lines; its cache is the one of the repository."""
    script = folder / "names.py"
    script.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(script)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent).stdout


def test_every_public_name_has_a_type(tmp_path):
    pytest.importorskip("mypy")
    names = [
        f"{package}.{name}"
        for package in PACKAGES
        for name in getattr(importlib.import_module(package), "__all__", ())
        if not inspect.ismodule(getattr(importlib.import_module(package), name))
    ]
    imports = [f"import {package}" for package in PACKAGES]
    report = revealed([*imports, *(f"reveal_type({name})" for name in names)], tmp_path)
    types = re.findall(r'Revealed type is "(.*)"', report)
    assert len(types) == len(names) > 150, report
    untyped = {name for name, found in zip(names, types, strict=True) if found == "Any"}
    assert ": error:" not in report, report
    assert not untyped
    (door,) = (found for name, found in zip(names, types, strict=True) if name == "spatiagraph.fit")
    assert "SlideModel" in door
