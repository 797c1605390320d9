"""Sphinx: ``sphinx-build -W --keep-going docs docs/_build``. Nothing is downloaded or trained."""

import importlib
import inspect
import re
from functools import cached_property
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.logging import getLogger

import spatiagraph

project = "spatiagraph"
copyright = author = "The spatiagraph developers"
version = release = spatiagraph.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "**sg_execution_times.rst"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"spatiagraph {version}"
html_math_renderer = "mathml"
html_theme_options = {"light_css_variables": {"code-font-size": "75%"}}  # 100 columns fit
html_copy_source = False
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # what torch says of every module says nothing of ours
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shapes"]
napoleon_use_ivar = True
sphinx_gallery_conf = {  # examples are shown; tests/test_examples.py runs them
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "plot_gallery": False,
    "remove_config_comments": True,
    "show_signature": False,
    "download_all_examples": False,
    "notebook_extensions": set(),  # they read the command line
}


def public_names() -> dict[str, dict[str, list[str]]]:
    """What each package of api.md has, by kind; an object is described where it comes first."""
    page = Path(__file__).with_name("api.md").read_text(encoding="utf-8")
    home: dict[int, str] = {}
    result = {}
    for package in re.findall(r"^   (spatiagraph[\w.]*)$", page, re.MULTILINE):
        module = importlib.import_module(package)
        own = [n for n, o in vars(module).items() if getattr(o, "__module__", "") == package]
        kinds: dict[str, list[str]] = {"classes": [], "functions": [], "elsewhere": []}
        for name in sorted(getattr(module, "__all__", own), key=str.lower):
            item = getattr(module, name)
            if name.startswith("_") or not (inspect.isclass(item) or inspect.isroutine(item)):
                continue
            if home.setdefault(id(item), f"{package}.{name}") != f"{package}.{name}":
                kinds["elsewhere"].append(f"{name} <{home[id(item)]}>")
            else:
                kinds["classes" if inspect.isclass(item) else "functions"].append(name)
        result[package] = kinds
    return result


autosummary_context = {"public": public_names()}


def skip_fields(app, what, name, obj, skip, options) -> bool | None:
    """Fields of dataclasses and named tuples, which the docstring of the class has; routing."""
    if name.startswith("set_") and name.endswith("_request"):  # sklearn adds these to estimators
        return True
    wrapped = isinstance(obj, property | cached_property | classmethod | staticmethod)
    return True if what == "class" and not wrapped and not callable(obj) else None


def finish_example(app, docname: str, source: list[str]) -> None:
    """The first line of an example is the title of its page; below its docstring, its picture."""
    folder, name = docname.rpartition("/")[::2]
    if folder != "auto_examples" or name == "index":
        return
    label = f".. _sphx_glr_auto_examples_{name}.py:\n\n"
    text = source[0].split(label)[1]  # what comes before says where to download
    title, rest = text.strip().split("\n\n", 1)
    intro, code = rest.split(".. GENERATED FROM PYTHON", 1)
    figure = f"images/gallery/{name}.png"
    if (Path(app.srcdir) / figure).is_file():
        intro += f".. figure:: /{figure}\n   :width: 75%\n\n"
    title = title.rstrip(".")
    source[0] = f"{label}{title}\n{'=' * len(title)}\n\n{intro}.. GENERATED FROM PYTHON{code}"


def math_visitor(as_block: bool):
    """Formulas as MathML, which browsers draw by themselves; sizes of brackets are left to them."""

    def visit(translator, node: nodes.Element) -> None:
        tex = re.sub(r"\\(bigg?|Bigg?)[lrm]?(?![a-zA-Z])|\\textstyle", "", node.astext())
        tex = tex.replace(r"\dots", r"\ldots")
        try:
            translator.body.append(tex2mathml(tex, as_block=as_block))
        except MathError as err:
            getLogger(__name__).warning("%s: %s", err, node.astext(), location=node)
        raise nodes.SkipNode

    return visit, None


def setup(app) -> None:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", math_visitor(False), math_visitor(True))
    app.connect("source-read", finish_example)
    app.connect("autodoc-skip-member", skip_fields)
