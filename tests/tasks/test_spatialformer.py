"""Objectives of SpatialFormer: what is hidden, which pairs count, and that they can be learned."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.testing import assert_close

import spatiagraph as sg
from spatiagraph.data.convert.counts import ragged_tensor
from spatiagraph.data.tokens import Marks, cell_sequences
from spatiagraph.losses import focal_loss
from spatiagraph.models import (
    SpatialFormer,
    spatialformer_recipe,
    spatialformer_tiny,
    spatialformer_vocabulary,
)
from spatiagraph.tasks import SpatialFormerPretraining
from spatiagraph.tasks.spatialformer import ColocalizedGenes, colocalized, hide_tokens
from spatiagraph.tasks.streams import Streams

VOCABULARY = spatialformer_vocabulary([f"G{i:04d}" for i in range(1922)])
MARKS = Marks(0, 1, 1949)


def cells(lengths, seed=0):
    """Cells of random genes, alphabetical ids from 27."""
    rng = np.random.default_rng(seed)
    ids = np.concatenate([27 + rng.permutation(1922)[:n] for n in lengths])
    meta = torch.tensor([[25, 8, 3, 6]]).repeat(len(lengths), 1)
    return ragged_tensor(ids, np.concatenate([[0], np.cumsum(lengths)])), meta


def test_a_share_of_tokens_is_hidden_in_three_ways():
    """SpatialFormer fact F23, on a million tokens."""
    ids, meta = cells(np.full(2000, 245))
    rows = torch.arange(2000)
    pairs = cell_sequences(ids, meta, MARKS, rows, rows.roll(1))
    parts = [
        (pairs, *hide_tokens(pairs, VOCABULARY, torch.Generator().manual_seed(s))) for s in range(2)
    ]
    values = [(p.tokens[p.mask], s.tokens[p.mask], c[p.mask]) for p, s, c in parts]
    true, shown, chosen = (torch.cat(column) for column in zip(*values, strict=True))
    special = (true == 1) | (true == 1949)
    assert not chosen[special].any()
    assert (shown == true)[~chosen].all()
    assert abs(chosen.sum() / (~special).sum() - 0.15) < 0.002
    mask, same = shown[chosen] == 2, shown[chosen] == true[chosen]
    other = shown[chosen][~mask & ~same]
    assert abs(mask.float().mean() - 0.8) < 0.005
    assert abs(same.float().mean() - 0.1) < 0.005
    assert other.min() >= 27
    assert other.max() <= 1948


def test_every_sequence_has_a_hidden_token():
    ids, meta = cells([1] * 400)
    single = cell_sequences(ids, meta[:, :0], MARKS, torch.arange(400))
    _, chosen = hide_tokens(single, VOCABULARY, torch.Generator().manual_seed(0), rate=0.01)
    assert (chosen.sum(1) == 1).all()
    assert chosen[:, 1].all()
    genes = cell_sequences(*cells([30] * 50), MARKS, torch.arange(50))
    _, chosen = hide_tokens(genes, VOCABULARY, rate=0.9, hide_metadata=False)
    assert not chosen[:, :5].any()


def test_focal_loss_is_that_of_the_paper():
    """SpatialFormer fact F22."""
    zero, target = torch.zeros(2), torch.tensor([1.0, 0.0])
    assert_close(focal_loss(zero, target), torch.tensor([0.04332, 0.12997]), atol=1e-5, rtol=0)
    logits, label = torch.randn(50), (torch.rand(50) < 0.5).float()
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="none")
    assert_close(focal_loss(logits, label, alpha=0.5, gamma=0.0), plain / 2)


def test_pairs_of_genes_are_found_by_rank_in_either_cell():
    ids = ragged_tensor(np.array([40, 30, 50, 50, 30, 40, 60]), np.array([0, 3, 7]))
    size = VOCABULARY.num_tokens
    codes = ragged_tensor(
        np.array([30 * size + 40, 30 * size + 99, 40 * size + 60]), np.array([0, 2, 3])
    )
    batch = sg.data.TissueData(gene_ids=ids, colocalized=codes)
    meta = torch.tensor([[25, 8, 3, 6]] * 2)
    both = torch.tensor([0, 1])
    pair = cell_sequences(ids, meta, MARKS, both, both.flip(0))
    together, known = colocalized(pair, batch, VOCABULARY)
    assert together.nonzero().tolist() == [[0, 0, 1], [1, 2, 3], [2, 2, 3], [3, 0, 1]]
    assert known.sum((1, 2)).tolist() == [3, 6, 6, 3]
    assert (together & ~known).sum() == 0
    genes, _ = pair.take_genes(pair.tokens)
    for cell, a, b in together.nonzero():
        assert sorted([int(genes[cell, a]), int(genes[cell, b])]) in ([30, 40], [40, 60])
    cut = cell_sequences(ids, meta, MARKS, both, both.flip(0), max_len=15)
    assert colocalized(cut, batch, VOCABULARY)[0].nonzero().tolist() == [[0, 0, 1], [3, 0, 1]]


@pytest.fixture(scope="module")
def slide():
    """Cells whose molecules lie in two heaps, genes of even and of odd number."""
    slide = sg.make_tissue(200, num_genes=30, image=None, seed=0)
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.uniform(0.5, 4, (200, 30)) * (rng.random((200, 30)) < 0.5))
    counts[:, 0] += 1
    slide.adata.X = counts.astype(np.float32)
    slide.adata.layers.clear()
    cell, gene = np.nonzero(counts)
    cell, gene = (np.repeat(v, counts[counts > 0]) for v in (cell, gene))
    heap = np.stack([6.0 * (gene % 2), np.zeros(len(gene))], 1)
    pos = slide.pos[cell] + heap + rng.normal(0, 0.3, (len(cell), 2))
    table = pd.DataFrame(pos, columns=["x_um", "y_um"])
    table["gene"] = np.array(slide.symbols)[gene]
    table["cell_id"] = slide.adata.obs_names.to_numpy()[cell]
    return sg.Slide(slide.adata, transcripts=table)


def first_batch(model, slide, num_pairs=32):
    return next(iter(model.batches([model.prepare(slide, learn=True)], num_pairs)))


def test_losses_start_where_guessing_does(slide):
    """SpatialFormer fact F14."""
    torch.manual_seed(0)
    vocabulary = spatialformer_vocabulary(
        [*slide.symbols, *(f"other{i}" for i in range(1922 - 30))]
    )
    model = spatialformer_tiny(spatialformer_recipe(vocabulary), dropout=0.0)
    task = SpatialFormerPretraining(model)
    found = task.loss(first_batch(model, slide, 64), torch.Generator().manual_seed(0))
    assert abs(found.parts["tokens"] - math.log(1950)) < 0.7
    assert abs(found.parts["cell_pairs"] - math.log(2)) < 0.2
    assert abs(found.parts["gene_pairs"] - math.log(2)) < 0.1
    assert_close(found.loss, sum(found.parts.values()))


def test_gradients_reach_every_parameter(slide):
    model = SpatialFormer.from_options([slide], channels=16)
    task = SpatialFormerPretraining(model)
    task.loss(first_batch(model, slide), torch.Generator().manual_seed(0)).loss.backward()
    without = [n for n, p in task.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in task.parameters())


def test_terms_without_labels_are_left_out(slide):
    model = SpatialFormer.from_options([slide], channels=16)
    bare = sg.Slide(slide.adata)
    assert set(SpatialFormerPretraining(model).loss(first_batch(model, bare)).parts) == {
        "tokens", "cell_pairs"}  # fmt: skip
    alone = SpatialFormerPretraining(model, pairs=False).loss(first_batch(model, slide))
    assert set(alone.parts) == {"tokens", "gene_pairs"}
    focal = SpatialFormerPretraining(model, genes=ColocalizedGenes(kind="focal"))
    assert focal.loss(first_batch(model, slide)).parts["gene_pairs"] < 0.3


def test_molecules_of_other_cells_are_refused_and_poor_ones_are_no_labels(slide, caplog):
    model = SpatialFormer.from_options([slide], channels=16)
    table = slide.transcripts
    other = table.assign(cell_id="x" + table["cell_id"].astype(str))
    with pytest.raises(ValueError, match=r"in cells of slide .*they are in \['xc"):
        model.prepare(sg.Slide(slide.adata, transcripts=other), learn=True)
    for change in ({"qv": 5.0}, {"cell_id": "UNASSIGNED"}):
        poor = sg.Slide(slide.adata, transcripts=table.assign(**change))
        parts = SpatialFormerPretraining(model).loss(first_batch(model, poor)).parts
        assert set(parts) == {"tokens", "cell_pairs"}
    assert caplog.text.count("No molecule of slide") == 2
    as_bytes = table.assign(cell_id=table["cell_id"].str.encode("ascii"))
    data = model.prepare(sg.Slide(slide.adata, transcripts=as_bytes), learn=True)
    assert (
        "gene_pairs"
        in SpatialFormerPretraining(model).loss(next(iter(model.batches([data], 32)))).parts
    )


def test_a_run_fades_its_labels(slide):
    model = SpatialFormer.from_options([slide], channels=16)
    task = SpatialFormerPretraining(model)
    task.uncertainty.start = 1
    sg.fit(model, slide, task=task, max_steps=5, progress=False, accelerator="cpu")
    assert task.fade == 0.25  # at the last of five steps


def test_mixed_others_weigh_as_much_as_neighbours(slide):
    model = spatialformer_tiny(
        spatialformer_recipe(spatialformer_vocabulary(slide.symbols)), channels=16,
        negatives="mixed",
    )  # fmt: skip
    batch = first_batch(model, slide, 60)
    assert batch.pair_label.mean() == pytest.approx(1 / 3)
    with torch.no_grad():
        model.cell_head.weight.zero_()
    loss = SpatialFormerPretraining(model).loss(batch).parts["cell_pairs"]
    assert_close(loss, torch.tensor(math.log(2)))


@pytest.mark.slow
def test_a_few_pairs_are_learned_by_heart(slide):
    """SpatialFormer fact F25."""
    torch.manual_seed(0)
    model = SpatialFormer.from_options([slide])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for block in model.encoder.blocks:
        block.drop_path.rate = block.attention.dropout = 0.0
    task = SpatialFormerPretraining(model, faded=())
    batch = first_batch(model, slide, 32)
    optimizer = torch.optim.AdamW(task.parameters(), 2e-3)
    for step in range(500):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (500 - step) / 250)
        loss = task.loss(batch, torch.Generator().manual_seed(7)).loss  # the same masks each time
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
    view = task.view(batch, Streams(torch.Generator().manual_seed(7), torch.device("cpu")))
    with torch.no_grad():
        named = model.token_head(view.hidden[view.chosen]).argmax(1)
        assert (named == view.sequences.tokens[view.chosen]).float().mean() > 0.95
        label = model.neighbor_logits(view.sequences, view.hidden).argmax(1)
        assert (label == batch.pair_label).all()
        together, known = colocalized(view.sequences, batch, model.vocabulary)
        score = model.gene_head(view.sequences.take_genes(view.hidden)[0])
        assert roc_auc_score(together[known], score[known]) > 0.95
