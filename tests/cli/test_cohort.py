"""``spatiagraph prepare --cohort`` and ``doctor`` on a cohort."""

import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.data.cohort import Cohort


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for seed in (0, 1):
        slide = sg.make_tissue(300, num_genes=30, image=None, seed=seed, slide_id=f"s{seed}")
        slide.adata.obs = slide.adata.obs[["cell_type"]]
        slide.adata.var = slide.adata.var.iloc[:, :0]
        sg.write(slide, folder / f"s{seed}.h5ad")
    return [folder / "s0.h5ad", folder / "s1.h5ad"]


def test_a_cohort_is_made_of_files_checked_and_named_where_it_is_damaged(run, files, tmp_path):
    out = tmp_path / "c.zarr"
    line = ("prepare", *files, "--cohort", out, "--genes", 20, "--tile-size", 128)
    done = run(*line)
    assert done.exit_code == 0, done.output
    assert "Cohort(2 slides, 600 cells, 20 genes, tiles of 128 cells)" in done.stdout
    assert run(*line).exit_code == 0  # nothing to do
    cohort = Cohort(out)
    assert cohort.slide_ids == ["s0", "s1"]
    done = run("doctor", out)
    assert done.exit_code == 0, done.output
    assert "every file is as it was written" in done.stdout
    shard = cohort.folder("s1") / "tiles" / "0" / "c" / "0"
    data = bytearray(shard.read_bytes())
    data[50] ^= 8
    shard.write_bytes(data)
    done = run("doctor", out)
    assert done.exit_code == 1
    assert f"damaged: {shard}" in done.stdout
    assert "found 1 missing or damaged" in done.stderr
    done = run("prepare", *files, "--cohort", out, "--genes", 25, "--tile-size", 128)
    assert done.exit_code == 1
    assert "is a cohort of another recipe" in done.stderr


def test_the_recipe_of_a_model_makes_the_tiles(run, files, tmp_path):
    slides = [sg.read(path) for path in files]
    model = sg.models.ContextModel.for_slides(slides, channels=8, num_genes=15)
    model.save_pretrained(tmp_path / "model")
    done = run("prepare", files[0], "--cohort", tmp_path / "c.zarr", "--model", tmp_path / "model")
    assert done.exit_code == 0, done.output
    cohort = Cohort(tmp_path / "c.zarr")
    assert cohort.recipe.to_dict() == model.recipe.to_dict()
    assert (cohort.tile_size, cohort.num_hops) == (model.tile_size, model.num_hops)
    tile = cohort.tiles(cohort.tile_size, model.num_hops)[0]
    rows = tile.cell_index.numpy()
    counts, _ = model.panel.counts(slides[0])
    np.testing.assert_array_equal(tile.x.numpy(), counts[rows].toarray())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Expected one slide, got 2"),
        (("--genes", 5), "Expected --cohort with --genes"),
        (("--cohort", "c.zarr", "--out", "x.h5ad"), "Expected --out or --cohort, got both"),
        (("--cohort", "c.zarr", "--model", "none"), "folder of a saved model"),
        (("--cohort", "c"), "ends in .zarr, got 'c'"),
        (("--cohort", "c.zarr", "--slide-id", "a"), "slide-id for each of 2 slides"),
    ],
)
def test_options_that_do_not_go_together(run, files, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    done = run("prepare", *files, *options)
    assert done.exit_code == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_slide_twice_is_refused_and_nothing_is_left(run, files, tmp_path):
    done = run("prepare", files[0], files[0], "--cohort", tmp_path / "c.zarr", "--genes", 20)
    assert done.exit_code == 1
    assert "different slide_id for each slide" in done.stderr
    assert not (tmp_path / "c.zarr").exists()


def test_what_is_no_cohort_is_no_doctor_s_business(run, tmp_path):
    done = run("doctor", tmp_path / "none.zarr")
    assert done.exit_code == 1
    assert "Expected a cohort at" in done.stderr


def test_fit_and_embed_take_a_cohort(run, files, tmp_path):
    store = tmp_path / "c.zarr"
    line = ("prepare", *files, "--cohort", store, "--genes", 15, "--tile-size", 128)
    assert run(*line).exit_code == 0
    line = ("fit", store, "--out", tmp_path / "run", "--epochs", 1, "--channels", 8)
    done = run(*line)
    assert done.exit_code == 0, done.output
    done = run("embed", tmp_path / "run", store)
    assert done.exit_code == 0, done.output
    assert "600 cells of 2 slides" in done.stdout
    trained = sg.models.ContextModel.from_pretrained(tmp_path / "run" / "model")
    whole = sg.embed(trained, sg.read(files[1]), tile_size=128, progress=False)
    found = Cohort(store)["s1"].adata.obsm["X_context"]
    np.testing.assert_array_equal(found, whole.obsm["X_context"])
    done = run("search", store, "--cell", Cohort(store)["s0"].adata.obs_names[3], "--slide", "s0")
    assert done.exit_code == 0, done.output
    assert "Most like" in done.stdout
    done = run("report", store, "--domains", 3, "--out", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "r.html").read_text().count("<img") == 2
    for words, message in (
        (("report", store, "--labels", "niche", "--out", tmp_path / "r.html"), "got others"),
        (("embed", tmp_path / "run", store, "--out", "a.h5ad"), "no --out with a cohort"),
        (("embed", tmp_path / "run", store, "--mpp", 0.5), "Expected no --mpp with a cohort"),
        (
            ("fit", store, "--out", tmp_path / "b", "--swap-xy", "--genes", 10, "--neighbors", 4),
            "Expected no --swap-xy, --genes, --neighbors with a cohort",
        ),
        (("embed", tmp_path / "run", files[0]), "Expected --out, the .h5ad file"),
        (("embed", tmp_path / "run", store, "--tile-size", 64), "--tile-size 128 of the cohort"),
    ):
        done = run(*words)
        assert done.exit_code == 1
        assert message in done.stderr


def test_shards_of_the_command_line(run, files, tmp_path):
    slides = [sg.read(path) for path in files]
    sg.models.ContextModel.for_slides(slides, channels=8).save_pretrained(tmp_path / "model")
    store = tmp_path / "c.zarr"
    line = ("prepare", *files, "--cohort", store, "--model", tmp_path / "model", "--shard")
    done = run(*line, "1/2")
    assert done.exit_code == 0, done.output
    assert "1 of 2 slides written; once all shards are, spatiagraph merge" in done.stdout
    done = run("merge", store)
    assert done.exit_code == 1
    assert "run --shard 0/2" in done.stderr
    assert run(*line, "0/2").exit_code == 0
    done = run("merge", store)
    assert "Cohort(2 slides, 600 cells" in done.stdout
    for shard in ("0/2", "1/2"):
        done = run("embed", tmp_path / "model", store, "--shard", shard)
        assert done.exit_code == 0, done.output
    assert run("merge", store).exit_code == 0
    assert Cohort(store)["s1"].adata.obsm["X_context"].shape == (300, 8)
    scores = ("evaluate", store, "--domains", "cell_type", "--protocol", "domains_kmeans")
    scores += ("--seeds", 1, "--out", tmp_path / "s.csv")
    for words in (("index", store, "--out", tmp_path / "index"), scores):
        out = words[words.index("--out") + 1]
        assert run(*words, "--shard", "1/2").exit_code == 0
        done = run("merge", out)
        assert done.exit_code == 1
        assert "run --shard 0/2" in done.stderr
        assert run(*words, "--shard", "0/2").exit_code == 0
        done = run("merge", out)
        assert done.exit_code == 0, done.output
        assert "merged in" in done.stdout
    assert len(sg.NicheIndex.load(tmp_path / "index")) == 600
    assert (tmp_path / "s.csv").read_text().count("X_context_niche") == 4
    done = run(*scores, "--mpp", 0.5)
    assert "Expected no --mpp with a cohort" in done.stderr
    for words, message in (
        ((*line, "2/2"), "Expected a shard from 0/2 to 1/2"),
        (("embed", tmp_path / "model", files[0], "--shard", "0/2", "--out", "a.h5ad"), "a slide"),
    ):
        done = run(*words)
        assert done.exit_code == 1
        assert message in done.stderr
