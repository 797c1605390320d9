"""``spatiagraph generate``: images of cells in another state."""

import pandas as pd
import pytest

from spatiagraph.data import make_tissue, write
from spatiagraph.inference import GeneratedImages

QUICK = ["--size-px", 16, "--epochs", 1, "--steps", 2, "--max-cells", 12, "--accelerator", "cpu"]
STATES = ["--states", "cell_type"]


@pytest.fixture(scope="module")
def embedded(run, tmp_path_factory):
    """An embedded slide with an image."""
    pytest.importorskip("spatialdata")
    folder = tmp_path_factory.mktemp("generate")
    tissue = make_tissue(600, num_types=3, num_niches=2, num_genes=40, image="dapi", seed=0)
    write(tissue, folder / "slide.zarr")
    for arguments in (
        ["fit", folder / "slide.zarr", "--out", folder / "run", *run.small],
        ["embed", folder / "run", folder / "slide.zarr", "--out", folder / "slide.h5ad"],
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
    return folder / "slide.h5ad"


@pytest.fixture(scope="module")
def made(run, embedded):
    """What the command wrote, and said."""
    out = embedded.parent / "out"
    transitions = ["--transition", "type1:type2:larger", "--transition", "type1:type0"]
    done = run(
        "generate", embedded, *STATES, *transitions, "--niches", "niche", *QUICK, "--out", out
    )
    assert done.exit_code == 0, done.output
    return out, done.output


def test_images_scores_and_pictures_are_written(made):
    out, said = made
    images = GeneratedImages.load(out / "slide_larger.zarr")
    assert images.images.shape == (12, 1, 1, 16, 16)
    assert (out / "slide_type1_to_type0.zarr").is_dir()
    assert (out / "larger.png").is_file()
    scores = pd.read_csv(out / "scores.csv", index_col=[0, 1])
    assert {"generated", "identity", "random_target", "wrong_condition"} <= set(
        scores.index.get_level_values(0)
    )
    assert "identity" in said
    written = {path.name for path in out.iterdir()}
    assert {"pairs.csv", "held_out.csv", "generator"} <= written


def test_a_trained_generator_is_used_again(run, embedded, made, tmp_path):
    out, _ = made
    given = ["--transition", "type1:type2:larger", "--generator", out]
    done = run("generate", embedded, *given, *QUICK, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    first, second = (
        GeneratedImages.load(folder / "slide_larger.zarr") for folder in (out, tmp_path)
    )
    assert (first.images == second.images).all()
    unknown = ["--transition", "type1:type2:other", "--generator", out]
    done = run("generate", embedded, *unknown, *QUICK, "--out", tmp_path)
    run.refused(done, "'other'", "larger")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--states", "cell_types", "--transition", "type1:type2"], ["'cell_types'", "cell_type"]),
        ([*STATES, "--transition", "type1:type9"], ["'type9'"]),
        (["--transition", "type1:type2"], ["--states", "--generator"]),
        ([*STATES, "--transition", "type1:type2", "--niches", "niches"], ["'niches'"]),
        ([*STATES, "--transition", "type1:type2", "--window-um", 5000], ["lower window_um"]),
        ([*STATES, "--transition", "type1:type2", "--size-px", 18], ["'size_px'", "divisible"]),
        (
            [*STATES, "--transition", "type1:type2:a b", "--transition", "type1:type0:a/b"],
            ["names of files", "a b", "a/b"],
        ),
    ],
)
def test_questions_without_an_answer_are_refused(run, embedded, tmp_path, options, words):
    done = run("generate", embedded, *QUICK, "--out", tmp_path / "out", *options)
    run.refused(done, *words)
