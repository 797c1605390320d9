"""SPATIA's binned branch: bins on the device, the encoder on them, and a mixture of experts."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch.testing import assert_close

from spatiagraph.data.tokens import bin_tokens
from spatiagraph.nn import (
    BinnedGeneEncoder,
    Cells,
    GeneTokenEncoder,
    MixtureOfExperts,
    TokenCellEncoder,
    quantile_bins,
)

G, D = 12, 16


def encoder(**options):
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "heads": 2, "hidden_channels": 24, "dropout": 0.0}
    return BinnedGeneEncoder(G, D, **{**sizes, **options}).eval()


@pytest.mark.parametrize("num_bins", [3, 5, 51])
@pytest.mark.parametrize("scaled", [False, True])
def test_bins_are_those_of_the_tokeniser(num_bins, scaled):
    """SPATIA fact 6: bit for bit those of scipy's rows, ties, single values and empty cells too."""
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.choice([0.3, 2, 20], (200, 1)), (200, 60)).astype(np.float32)
    x[:40] *= rng.random((40, 60)).astype(np.float32)  # no counts
    x[0], x[1], x[2] = 0, 0, 4
    x[1, 7] = 3
    scale = rng.uniform(0.2, 5, 60) if scaled else None
    expected = bin_tokens(csr_matrix(x), num_bins, gene_scale=scale).toarray()
    given = None if scale is None else torch.from_numpy(scale)
    found = quantile_bins(torch.from_numpy(x), num_bins, scale=given)
    assert_close(found, torch.from_numpy(expected).float(), rtol=0, atol=0)
    assert found.dtype == torch.float32
    assert found[:, :].max() <= num_bins - 1
    assert_close(quantile_bins(5.0 * torch.from_numpy(x[40:]), num_bins, scale=given), found[40:])


def test_padding_has_no_bin_and_is_not_counted():
    x = torch.tensor([[5.0, 1.0, 3.0, 9.0]])
    pad = torch.tensor([[False, False, False, True]])
    found = quantile_bins(x, 11, pad=pad)
    assert_close(found[:, :3], quantile_bins(x[:, :3], 11))
    assert found[0, 3] == 0
    with pytest.raises(ValueError, match="'num_bins' of 3 or more"):
        quantile_bins(x, 2)


def test_cls_comes_first_and_genes_have_no_order():
    """SPATIA fact 11, of the binned branch."""
    model, ids = encoder(), torch.tensor([[3, 7, 1, 9]])
    bins = torch.tensor([[4.0, 50.0, 1.0, 20.0]])
    out = model(ids, bins)
    assert out.tokens.shape == (1, 5, D)
    assert out.num_cell_tokens == model.num_cell_tokens == 1
    order = torch.tensor([2, 0, 3, 1])
    again = model(ids[:, order], bins[:, order])
    assert_close(again.tokens[:, 0], out.tokens[:, 0])
    assert_close(again.gene_tokens, out.gene_tokens[:, order])
    assert_close(model.label_tokens(out.tokens, 3), out.tokens[:, :1].expand(1, 3, D))


def test_cls_is_the_last_row_with_value_zero():
    model = encoder(num_layers=0)
    out = model(torch.tensor([[2]]), torch.tensor([[7.0]]))
    first = model.norm(model.identity.weight[-1]) + model.value(torch.zeros(1))
    assert_close(out.tokens[0, 0], first)
    gene = model.norm(model.identity.weight[2]) + model.value(torch.tensor([7.0]))
    assert_close(out.tokens[0, 1], gene)


def test_padding_changes_nothing_and_values_are_clamped():
    """SPATIA fact 13, of the binned branch."""
    model, ids = encoder(), torch.tensor([[3, 7, 1]])
    bins = torch.tensor([[4.0, 50.0, 1.0]])
    pad = torch.tensor([[False, False, False, True]])
    wide = model(torch.cat([ids, ids[:, :1]], 1), torch.cat([bins, bins[:, :1]], 1), pad=pad)
    assert_close(wide.tokens[:, :4], model(ids, bins).tokens)
    assert wide.pad.tolist() == [[False, False, False, False, True]]
    assert_close(model(ids, bins * 0 + 512).tokens, model(ids, bins * 0 + 9e9).tokens)


def test_hidden_bins_are_minus_one_and_named_genes_have_no_value():
    model, ids = encoder(), torch.tensor([[3, 7, 1]])
    bins, some = torch.tensor([[4.0, 50.0, 1.0]]), torch.tensor([[False, True, False]])
    hidden = model(ids, bins, value_mask=some)
    assert_close(hidden.tokens, model(ids, torch.tensor([[4.0, -1.0, 1.0]])).tokens)
    named = model(ids, bins, named=some).tokens
    other = model(ids, torch.tensor([[4.0, 9.0, 1.0]]), named=some).tokens
    assert_close(named, other)
    assert not torch.isclose(named, hidden.tokens).all()
    everything = torch.ones_like(some)
    assert_close(model(ids, bins, named=everything).gene_tokens, model(ids).gene_tokens)


def test_the_published_size():
    """SPATIA fact 9, of the binned branch: 512 wide, 12 post-norm layers, 8 heads, MLPs of 512."""
    with torch.device("meta"):
        model = BinnedGeneEncoder(20_000)
    layers = model.transformer.layers
    assert (len(layers), layers[0].heads, layers[0].pre_norm) == (12, 8, False)
    assert layers[0].mlp[0].out_features == layers[0].mlp[3].out_features == 512
    assert isinstance(layers[0].mlp[1], torch.nn.ReLU)
    assert isinstance(model.transformer.norm, torch.nn.Identity)


def test_scales_are_means_over_cells_that_express_a_gene():
    model = encoder()
    x = torch.poisson(torch.full((50, G), 1.0), generator=torch.Generator().manual_seed(0))
    x[:, 4] *= 7
    x[:, 5] = 0
    model.set_gene_scale([(x, None), (10 * x, None)])  # a slide that is ten times as deep
    mean = (
        torch.stack(
            [column[column > 0].mean() if column.any() else x[x > 0].mean() for column in x.T]
        )
        / x[x > 0].mean()
    )
    assert_close(model.gene_scale, mean)
    measured = torch.arange(G) != 4
    model.set_gene_scale([(x, measured)])
    assert model.gene_scale[4] == 1


def test_cells_are_read_by_the_expressed_genes_and_their_scaled_bins():
    genes = encoder()
    x = torch.poisson(torch.full((6, G), 1.0), generator=torch.Generator().manual_seed(1))
    genes.gene_scale.copy_(torch.linspace(0.5, 4, G))
    model = TokenCellEncoder(8, genes, tokenizer="bins", num_tokens=1200).eval()
    sampled = model.sample(x, None)
    assert sampled.pad is not None
    kept = [set(i[~p].tolist()) for i, p in zip(sampled.ids, sampled.pad, strict=True)]
    assert kept == [set(row.nonzero().flatten().tolist()) for row in x]
    scale = genes.gene_scale.double().numpy()
    expected = torch.from_numpy(bin_tokens(csr_matrix(x.numpy()), gene_scale=scale).toarray())
    assert_close(model.values(sampled), sampled.take(expected.float()))
    out = model.streams(Cells(x))
    assert_close(out.cell, model.project(out.genes[:, 0]))
    assert_close(model(Cells(3 * x)), model(Cells(x)))  # SPATIA fact 6
    with pytest.raises(ValueError, match="tokenizer='bins' with a BinnedGeneEncoder"):
        TokenCellEncoder(8, encoder())
    with pytest.raises(ValueError, match=r"'cell_tokens' \[1, 1, 16\]"):
        genes(torch.tensor([[1]]), cell_tokens=torch.zeros(1, 2, D))
    with pytest.raises(ValueError, match=r"'named' of shape \[1, 1\]"):
        genes(torch.tensor([[1]]), named=torch.zeros(1, 2, dtype=torch.bool))


def test_each_label_has_its_own_token_in_the_count_branch():
    genes = GeneTokenEncoder(G, D, num_labels=2, num_layers=1)
    stream = torch.randn(3, 4 + 5, D)
    assert_close(genes.label_tokens(stream, 2), stream[:, 2:4])


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_experts_are_weighted_by_the_best_gates(top_k):
    torch.manual_seed(0)
    model = MixtureOfExperts(D, 3, top_k=top_k)
    h = torch.randn(2, 5, D)
    share = model.gate(h).softmax(-1)
    kept = share >= share.sort(-1, descending=True).values[..., top_k - 1 : top_k]
    expected = share * kept / (share * kept).sum(-1, keepdim=True)
    assert_close(model.weights(h), expected)
    each = torch.stack([expert(h) for expert in model.experts], -1)  # [2, 5, 3, E]
    assert_close(model(h), (each * expected.unsqueeze(2)).sum(-1))
    assert_close(model(h[0]), model(h)[0])
    model(h).square().sum().backward()
    assert all(p.grad is not None for p in model.gate.parameters()) or top_k == 1


def test_published_mixture_and_wrong_numbers():
    model = MixtureOfExperts(D)
    assert (len(model.experts), model.top_k) == (4, 2)
    assert ((model.weights(torch.randn(9, D)) > 0).sum(-1) == 2).all()
    with pytest.raises(ValueError, match="'top_k' from 1 to the 2 experts"):
        MixtureOfExperts(D, num_experts=2, top_k=3)


def test_what_is_no_number_stays_none():
    """A gate that chooses nobody must not answer with zeros."""
    h = torch.randn(3, D)
    h[1, 0] = torch.nan
    found = MixtureOfExperts(D)(h)
    assert found.isfinite().flatten().tolist() == [True, False, True]
