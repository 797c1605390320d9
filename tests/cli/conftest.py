"""A small slide, a model trained on it and its embeddings, shared by the tests of all commands."""

import pytest
from typer.testing import CliRunner

from spatiagraph.cli import app
from spatiagraph.data import make_tissue


class Command:
    """The command line, as in a shell."""

    small = ("--epochs", 2, "--channels", 8, "--accelerator", "cpu")

    def __call__(self, *arguments):
        """What ``spatiagraph`` did with the arguments."""
        return CliRunner().invoke(app, [str(a) for a in arguments])

    @staticmethod
    def tissue(path, **arguments):
        """Write synthetic tissue as a file of counts and coordinates in µm."""
        make_tissue(300, num_genes=40, **arguments).adata.write_h5ad(path)
        return path

    @staticmethod
    def refused(result, *words):
        """One line on the error stream says what is wrong, and the exit code is not zero."""
        assert result.exit_code != 0, result.output
        lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, result.output
        for word in words:
            assert word in lines[0]


@pytest.fixture(scope="session")
def run():
    return Command()


@pytest.fixture(scope="session")
def workplace(run, tmp_path_factory):
    """Folder with ``slide.h5ad``, ``run`` and ``embedded.h5ad``; read it, do not change it."""
    folder = tmp_path_factory.mktemp("cli")
    slide = run.tissue(folder / "slide.h5ad")
    for arguments in (
        ["fit", slide, "--out", folder / "run", *run.small],
        ["embed", folder / "run", slide, "--out", folder / "embedded.h5ad"],
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
    return folder
