"""The package as a whole: light to import, complete, and nobody's machine in it."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import spatiagraph

ROOT = Path(spatiagraph.__file__).parent
REPOSITORY = Path(__file__).parents[1]
PACKAGES = sorted(
    ["spatiagraph"]
    + [m.name for m in pkgutil.walk_packages([str(ROOT)], "spatiagraph.") if m.ispkg]
)
HEAVY = {
    "anndata", "bokeh", "diffusers", "faiss", "lightning", "matplotlib", "numba", "numpy", "ot",
    "pandas", "PIL", "pyarrow", "scipy", "sklearn", "spatialdata", "tifffile", "timm", "torch",
    "torch_geometric", "typer", "zarr",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running some code."""
    report = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-W", "ignore", "-c", f"{code}\n{report}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not modules_after("import spatiagraph") & HEAVY


def test_listing_names_loads_nothing_heavy():
    code = "import spatiagraph as sg; dir(sg); sg.__version__; sg.__all__; sg.data; sg.training"
    assert not modules_after(code) & HEAVY


def test_layers_on_tensors_load_neither_trainer_nor_plots_nor_index():
    loaded = modules_after("from spatiagraph.nn import GraphTransformer, NichePool")
    assert not loaded & {"lightning", "timm", "faiss", "matplotlib", "diffusers", "zarr"}


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_resolves(name):
    package = importlib.import_module(name)
    public = getattr(package, "__all__", [])
    missing = [attribute for attribute in public if not hasattr(package, attribute)]
    assert not missing
    assert len(public) == len(set(public))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute fitt"):
        _ = spatiagraph.fitt


def test_installed_version_and_command_are_those_of_the_source():
    assert version("spatiagraph") == spatiagraph.__version__
    (command,) = entry_points(group="console_scripts", name="spatiagraph")
    assert callable(command.load())


def test_annotations_are_offered_to_type_checkers():
    assert (ROOT / "py.typed").is_file()


# where the name one imports is not the name one installs
DISTRIBUTION = {
    "PIL": "pillow",
    "llvmlite": "numba",
    "pydantic_core": "pydantic",
    "mpl_toolkits": "matplotlib",
    "ot": "pot",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
OPTIONAL = {"pytest", "triton"}  # triton comes with torch where it can run; pytest is for tests


def test_every_import_is_a_declared_dependency():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in lines}
    declared.add("faiss")  # faiss-gpu or faiss-cpu, by platform
    missing = {}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            else:
                continue
            for name in {name.split(".")[0] for name in names} - OPTIONAL - {"spatiagraph"}:
                known = DISTRIBUTION.get(name, name).lower().replace("_", "-")
                if name not in sys.stdlib_module_names and known not in declared:
                    missing[name] = path.name
    assert not missing


# hosts anyone can reach
PUBLIC = {
    "arxiv.org", "doi.org", "github.com", "scikit-image.org", "www.biorxiv.org",
    "huggingface.co", "www.w3.org", "www.openmicroscopy.org", "127.0.0.1",
}  # fmt: skip
GENERATED = {"__pycache__", "_build", "api", "auto_examples"}
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".cfg", ".json", ".html", ".css", ""}


def tree() -> list[Path]:
    """Text files of the repository, without what git ignores and what tools leave behind."""
    folders = ["spatiagraph", "tests", "examples", "docs", ".ci"]
    files = [path for folder in folders for path in (REPOSITORY / folder).rglob("*")]
    files += [path for path in REPOSITORY.iterdir() if path.name != ".git"]
    return [
        path
        for path in files
        if path.is_file() and path.suffix in TEXT and not GENERATED & set(path.parts)
    ]


def test_the_tree_names_no_private_host_index_or_machine():
    options = "|".join(["index", "find-links", "trusted-host"])
    private = re.compile(rf"--(extra-)?({options})|_index_url|/(work|home|mnt|Users|lustre)/\w")
    wrong = []
    for path in tree():
        text = path.read_text(encoding="utf-8")
        hosts = {host.lower() for host in re.findall(r"https?://([\w.-]+\w)", text)}
        wrong += [f"{path.name}: {host}" for host in sorted(hosts - PUBLIC)]
        if path != Path(__file__):
            wrong += [f"{path.name}: {match[0]}" for match in private.finditer(text)]
    assert len(tree()) > 100
    assert not wrong
