"""SToFM on slides that are odd, beside the rest of the program."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

import spatiagraph as sg
from spatiagraph.cli import app
from spatiagraph.data import FeatureCache, Slide
from spatiagraph.models import SlideModel, SToFM, SubSlices
from spatiagraph.models.stofm.loader import BucketSampler
from spatiagraph.tasks import SToFMPretraining, SubSliceCorruption, pretraining

KD = SubSlices(max_cells=100, num_neighbors=12)


def slide_at(pos, counts=None, slide_id="s"):
    num = len(pos)
    counts = np.random.default_rng(0).poisson(3.0, (num, 12)) if counts is None else counts
    adata = anndata.AnnData(csr_matrix(counts.astype(np.float32)))
    adata.var_names, adata.obs_names = [f"g{i}" for i in range(12)], [f"c{i}" for i in range(num)]
    adata.obsm["spatial"] = np.asarray(pos, float)
    return Slide(adata, slide_id=slide_id, check=False)


@pytest.fixture(scope="module")
def slide():
    return slide_at(np.random.default_rng(1).uniform(0, 300, (250, 2)))


@pytest.fixture(scope="module")
def model(slide):
    return SToFM.for_slides([slide], slices=KD)


@pytest.mark.parametrize("norm", ["rms", "bbox"])
@pytest.mark.parametrize("partition", ["kd", "grid", "overlap"])
@pytest.mark.parametrize("layout", ["a line", "pairs at one position", "all at one position"])
def test_cells_on_a_line_or_at_one_position_are_embedded(model, layout, partition, norm):
    rng = np.random.default_rng(0)
    pos = {
        "a line": np.stack([np.arange(150.0) * 9, np.zeros(150)], 1),
        "pairs at one position": np.repeat(rng.uniform(0, 200, (75, 2)), 2, axis=0),
        "all at one position": np.full((150, 2), 7.0),
    }[layout]
    rule = SubSlices(partition, norm, max_cells=60, halo=5, num_neighbors=9)
    odd = SToFM(model.recipe, model.cell_encoder, model.encoder, slices=rule)
    slide = slide_at(pos)
    data = odd.prepare(slide)
    for batch in odd.batches([data], 60):
        h = odd(*odd.inputs(batch)).cell
        assert bool(h.isfinite().all())
    out = pretraining(odd).loss(
        next(iter(odd.batches([data], 200))), torch.Generator().manual_seed(0)
    )
    assert bool(out.loss.isfinite())


def test_sub_slices_of_a_single_cell_are_embedded(model, slide):
    """SToFM fact A14."""
    rule = SubSlices(max_cells=1)
    one = SToFM(model.recipe, model.cell_encoder, model.encoder, slices=rule)
    z = sg.embed(one, slide[np.arange(20)], progress=False).obsm["X_stofm"]
    assert np.isfinite(z).all()
    assert (np.abs(z).sum(1) > 0).all()


@pytest.mark.parametrize("cells", ["profile", "ranks"])
def test_the_same_seed_gives_the_same_weights(slide, cells):
    one, same, other = (
        SToFM.for_slides([slide], cells=cells, slices=KD, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert not [name for name, value in one.items() if not torch.equal(value, same[name])]
    assert not torch.equal(one["heads.mask"], other["heads.mask"])


@pytest.mark.parametrize("exclude_masked", [False, True])
def test_without_virtual_cells_it_is_trained_and_embeds(slide, exclude_masked):
    own = SToFM.for_slides([slide], slices=KD, virtual=None)
    data = own.prepare(slide)
    assert len(data.virtual_x) == 0
    batch = next(iter(own.batches([data], 200)))
    assert bool((batch.kind != 2).all())
    assert bool((batch.own_size == 0).all())
    how = SubSliceCorruption(exclude_masked=exclude_masked)
    task = SToFMPretraining(own, corruption=how)
    out = task.loss(batch, torch.Generator().manual_seed(0))
    assert bool(out.loss.isfinite())
    sg.fit(own, slide, task=task, max_steps=2, progress=False)
    adata = sg.embed(own, slide[:], progress=False)
    assert np.isfinite(adata.obsm["X_stofm"]).all()
    assert (adata.obs["stofm_virtual"] == -1).all()


@pytest.mark.parametrize("cells", ["profile", "ranks"])
def test_a_cell_without_any_gene_of_the_model_is_embedded(slide, cells):
    counts = slide.counts.toarray()
    counts[7, :8] = 0
    odd = slide_at(slide.pos, counts)
    few = Slide(odd.adata[:, :8].copy(), slide_id="few", check=False)
    model = SToFM.for_slides([few], cells=cells, slices=KD)
    adata = sg.embed(model, odd, progress=False)
    assert np.isfinite(adata.obsm["X_stofm"]).all()
    assert_allclose(np.linalg.norm(adata.obsm["X_stofm_cell"], axis=1), 1, atol=1e-5)


def test_normalised_values_cannot_be_ranked(slide):
    model = SToFM.for_slides([slide], cells="ranks", slices=KD)
    values = Slide(slide.adata.copy(), slide_id="v", expression="normalized", check=False)
    with pytest.raises(ValueError, match="raw counts in slide 'v'"):
        model.prepare(values)


@pytest.mark.parametrize(
    ("cells", "message"), [("profile", "another species"), ("ranks", "needs orthologs=")]
)
def test_two_species_are_refused_without_orthologues(slide, cells, message):
    human, mouse = slide.adata.copy(), slide.adata.copy()
    human.var_names = [f"GENE{i}A" for i in range(12)]
    mouse.var_names = [f"Gene{i}a" for i in range(12)]
    human, mouse = Slide(human, slide_id="h", check=False), Slide(mouse, slide_id="m", check=False)
    with pytest.raises(ValueError, match="two species"):
        SToFM.for_slides([human, mouse], cells=cells, slices=KD)
    model = SToFM.for_slides([human], cells=cells, slices=KD)
    with pytest.raises(ValueError, match=message):
        model.prepare(mouse)


@pytest.mark.parametrize("cells", ["profile", "ranks"])
def test_fractional_counts_are_refused(slide, cells):
    broken = slide.adata.copy()
    broken.X = broken.X.multiply(0.37).tocsr()
    model = SToFM.for_slides([slide], cells=cells, slices=KD)
    with pytest.raises(ValueError, match="counts"):
        model.prepare(Slide(broken, slide_id="broken"))


def test_frozen_vectors_are_read_from_the_disk(slide, tmp_path, monkeypatch):
    model = SToFM.for_slides([slide], cells="ranks", slices=KD)
    expected = model.prepare(slide).z
    model.cache = FeatureCache(tmp_path)
    model.prepare(slide)
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(model.cell_encoder, "forward", None)  # not asked again
        assert torch.equal(model.prepare(slide).z, expected)
    with torch.no_grad():
        model.cell_encoder.pool.weight.mul_(-1)  # other weights, other vectors
    assert not torch.allclose(model.prepare(slide).z, expected)
    assert len(list(tmp_path.iterdir())) == 2


def test_it_is_validated_on_blocks_of_tissue(slide):
    model = SToFM.for_slides([slide], slices=KD)
    result = sg.fit(model, [slide], validation=0.2, max_epochs=2, accelerator="cpu", progress=False)
    assert np.isfinite(result.history["val_loss"]).all()
    assert {"val_hidden_cells", "val_distances"} <= set(result.history)


def test_the_command_line_trains_and_embeds(slide, tmp_path):
    slide.adata.write_h5ad(tmp_path / "slide.h5ad")
    run, out = str(tmp_path / "run"), str(tmp_path / "out.h5ad")
    command = CliRunner()
    fit = ["fit", str(tmp_path / "slide.h5ad"), "--model", "stofm", "--preset", "tiny"]
    done = command.invoke(app, [*fit, "--epochs", "1", "--out", run, "--accelerator", "cpu"])
    assert done.exit_code == 0, done.output
    assert {"hidden_cells", "distances"} <= set(pd.read_csv(f"{run}/history.csv"))
    embed = ["embed", run, str(tmp_path / "slide.h5ad"), "--out", out]
    done = command.invoke(app, embed)
    assert done.exit_code == 0, done.output
    adata = anndata.read_h5ad(out)
    assert {"X_stofm", "X_stofm_cell"} <= set(adata.obsm)
    assert {"stofm_sub_slice", "stofm_virtual"} <= set(adata.obs)
    assert adata.uns["spatiagraph"]["stofm"]["norm"] == "rms"
    model = SlideModel.from_pretrained(f"{run}/model")
    expected = sg.embed(model, slide[:], progress=False).obsm["X_stofm"]
    assert_allclose(adata.obsm["X_stofm"], expected, atol=1e-5)
    done = command.invoke(app, [*fit[:-1], "small", "--out", str(tmp_path / "other")])
    assert done.exit_code != 0
    assert "--preset tiny or base of --model stofm, got small" in " ".join(done.output.split())


def test_a_model_of_human_genes_embeds_both_species_alike(slide, tmp_path):
    """The same cells as mouse and as human: the model is trained on mouse and reads both."""
    mouse = Slide(slide.adata.copy(), slide_id="mouse", check=False)
    mouse.adata.var_names = [f"Gene{i}" for i in range(12)]
    counts = slide.adata.X.toarray()
    counts[:, 9] += counts[:, 10]  # two mouse genes of one human gene
    human = slide.adata[:, [*range(10), 11]].copy()
    human.X = csr_matrix(counts[:, [*range(10), 11]])
    human.var_names = [f"GENE{i}" for i in (*range(10), 11)]
    human = Slide(human, slide_id="human", check=False)
    table = tmp_path / "orthologs.csv"
    rows = [*((f"Gene{i}", f"GENE{i}") for i in range(10)), ("Gene10", "GENE9")]
    pd.DataFrame(rows, columns=["mouse", "human"]).to_csv(table, index=False)
    path = tmp_path / "mouse.h5ad"
    sg.write(mouse, path)
    args = ["fit", path, "--out", tmp_path / "run", "--model", "stofm", "--orthologs", table,
            "--steps", "1", "--accelerator", "cpu"]  # fmt: skip
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    model = SToFM.from_pretrained(tmp_path / "run" / "model")
    assert set(model.panel.symbols) == {f"GENE{i}" for i in range(10)}
    found = [
        sg.embed(model, s, device="cpu", progress=False).obsm["X_stofm"] for s in (mouse, human)
    ]
    assert_allclose(found[0], found[1], atol=1e-5)


def test_batches_hold_every_item_once_and_like_lengths_together():
    lengths = np.random.default_rng(0).integers(100, 1000, 60)
    sampler = BucketSampler(lengths, 2000, shuffle=True, seed=0)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(60))
        assert max(lengths[batch].sum() for batch in batches) <= 2000
        orders.append(batches)
    assert orders[0] != orders[1]
    spread = np.mean([np.ptp(lengths[batch]) for batch in orders[0]])
    assert spread < 0.6 * np.ptp(lengths)
    uneven = np.repeat([1100, 300, 250, 60], [20, 20, 40, 200])
    sampler = BucketSampler(uneven, 4096, shuffle=True, seed=0)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert max(uneven[batch].sum() for batch in sampler) <= 4096
    assert list(BucketSampler(np.array([], int), 100, shuffle=True, seed=0)) == []
    long = BucketSampler(np.array([5000, 10, 10, 20]), 100, shuffle=True, seed=0)
    assert [0] in list(long)
    in_order = BucketSampler(lengths, 2000, shuffle=False, seed=0)
    assert [i for batch in in_order for i in batch] == list(range(60))
    assert max(lengths[batch].sum() for batch in in_order) <= 2000
