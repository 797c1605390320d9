import pytest
import torch
from sklearn.decomposition import PCA
from torch.testing import assert_close

from spatiagraph.nn import GeneEncoder


def counts(num_cells: int = 60, num_genes: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rate = torch.rand(num_cells, num_genes, generator=generator) * 5
    return torch.poisson(rate, generator=generator)


def test_gene_encoder_starts_as_pca_of_square_root_profiles():
    x = counts()
    encoder = GeneEncoder(20, 4)
    encoder.initialize(x)
    profile = (x * x.sum(1).median() / x.sum(1, keepdim=True)).sqrt().numpy()
    expected = PCA(4, random_state=0).fit_transform(profile)
    assert_close(encoder(x).detach(), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


def test_gene_encoder_does_not_see_masked_genes():
    x = counts()
    encoder = GeneEncoder(20, 4)
    encoder.initialize(x)
    mask = torch.rand(x.shape) > 0.3
    changed = torch.where(mask, x, x + 7)
    depth = x.sum(1)
    assert_close(encoder(x, mask, depth), encoder(changed, mask, depth))
    assert not torch.allclose(encoder(x, None, depth), encoder(changed, None, depth))


def test_gene_encoder_makes_up_for_hidden_genes_by_the_share_of_those_it_sees():
    """G / |V| times what the seen genes add, of the linear map by hand."""
    x = counts()
    encoder = GeneEncoder(20, 4, hidden_channels=0)
    encoder.initialize(x)
    mask = torch.arange(20).expand_as(x) % 4 != torch.arange(len(x)).unsqueeze(1) % 4  # 15 of 20
    profile = (x * x.sum(1).median() / x.sum(1, keepdim=True)).sqrt()
    seen = torch.where(mask, profile - profile.mean(0), 0)
    expected = (20 / 15) * seen @ encoder.linear.weight.T
    assert_close(encoder(x, mask, x.sum(1)), expected, atol=1e-4, rtol=1e-4)


def test_gene_encoder_ignores_sequencing_depth():
    x = counts()
    encoder = GeneEncoder(20, 4)
    encoder.initialize(x)
    assert_close(encoder(x), encoder(7 * x))


def test_gene_encoder_does_not_depend_on_the_order_of_genes():
    """SPATIA fact 11: permuting genes with their counts and weights changes nothing."""
    x, order = counts(), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    encoder, permuted = GeneEncoder(20, 4), GeneEncoder(20, 4)
    encoder.initialize(x)
    permuted.load_state_dict(encoder.state_dict())
    permuted.linear.weight.data = encoder.linear.weight.data[:, order]
    permuted.mean = encoder.mean[order]
    assert_close(encoder(x), permuted(x[:, order]))


def test_gene_encoder_keeps_a_fixed_basis_out_of_training():
    encoder = GeneEncoder(20, 4, fixed_basis=True)
    encoder(counts()).sum().backward()
    assert encoder.linear.weight.grad is None
    assert encoder.scale.grad is not None


def test_gene_encoder_leaves_normalised_values_alone():
    x = counts()
    encoder = GeneEncoder(20, 4, transform="none", normalize_depth=False)
    assert_close(encoder.normalize(x), x)


def test_gene_encoder_rejects_another_panel():
    with pytest.raises(ValueError, match="Expected 20 genes as in the model's panel, got 5"):
        GeneEncoder(20, 4)(counts(3, 5))


def test_gene_encoder_rejects_an_unknown_transform():
    with pytest.raises(ValueError, match="got 'log2'"):
        GeneEncoder(20, 4, transform="log2")
