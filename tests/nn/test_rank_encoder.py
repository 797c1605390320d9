import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.data.convert.counts import ragged_tensor
from spatiagraph.nn import Cells, ProfileEncoder, RankEncoder, padded_tokens

LENGTHS = [3, 9, 1, 5, 9, 2]


def cells_of(lengths=LENGTHS, num_tokens=30, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.concatenate(
        [[num_tokens - 1, *rng.integers(2, num_tokens - 1, n - 1)] for n in lengths]
    )
    return Cells(gene_ids=ragged_tensor(ids, np.cumsum([0, *lengths])))


def encoder(num_tokens=30, **options):
    torch.manual_seed(0)
    model = RankEncoder(num_tokens, 16, 2, 4, hidden_channels=24, max_len=12, **options).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.4)
    return model


def test_vectors_have_length_one_and_padding_does_not_matter():
    """SToFM fact A15."""
    model, cells = encoder(), cells_of()
    z = model(cells)
    assert_close(z.norm(dim=1), torch.ones(6))
    model.chunk_size = 2
    assert_close(model(cells), z, atol=1e-5, rtol=0)
    for i, length in enumerate(LENGTHS):
        start = sum(LENGTHS[:i])
        ids = cells.gene_ids.values()[start : start + length].numpy()
        alone = Cells(gene_ids=ragged_tensor(ids, np.array([0, length])))
        assert_close(model(alone)[0], z[i], atol=1e-5, rtol=0)


def test_a_row_without_token_is_zero_and_no_cells_are_none():
    ids, ptr = np.array([29, 4, 29, 5, 6]), np.array([0, 2, 2, 5])
    z = encoder()(Cells(gene_ids=ragged_tensor(ids, ptr)))
    assert z[1].tolist() == [0.0] * 16
    assert_close(z[[0, 2]].norm(dim=1), torch.ones(2))
    none = Cells(gene_ids=ragged_tensor(np.empty(0, np.int64), np.array([0])))
    assert encoder()(none).shape == (0, 16)
    with pytest.raises(ValueError, match="ranked genes"):
        encoder()(Cells(x=torch.ones(2, 3)))


def test_states_are_those_of_the_encoder_of_torch():
    model, cells = encoder(), cells_of()
    ids, real = padded_tokens(cells.gene_ids, torch.arange(6))
    theirs = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 4, 24, 0.0, "relu", 1e-12, batch_first=True),
        2,
        enable_nested_tensor=False,
    ).eval()
    for ours, layer in zip(model.transformer.layers, theirs.layers, strict=True):
        layer.self_attn.in_proj_weight.data = ours.qkv.weight.data
        layer.self_attn.in_proj_bias.data = ours.qkv.bias.data
        pairs = (
            (layer.self_attn.out_proj, ours.out), (layer.linear1, ours.mlp[0]),
            (layer.linear2, ours.mlp[3]), (layer.norm1, ours.norm_attention),
            (layer.norm2, ours.norm_mlp),
        )  # fmt: skip
        for mine, other in pairs:
            mine.load_state_dict(other.state_dict())
    start = model.norm(model.token(ids) + model.position.weight[: ids.size(1)])
    expected = theirs(start, src_key_padding_mask=~real)
    assert_close(model.states(ids, real)[real], expected[real], atol=1e-5, rtol=1e-4)


def test_the_published_size_has_about_ten_million_parameters():
    """SToFM, section 3.1."""
    with torch.device("meta"):
        number = sum(p.numel() for p in RankEncoder(25_427).parameters())
    assert 9.5e6 < number < 10.5e6


def test_profiles_are_unit_vectors_of_principal_components():
    """SToFM fact A15."""
    generator = torch.Generator().manual_seed(0)
    rate = torch.rand(2, 40, generator=generator).repeat_interleave(60, 0) * 9
    x = torch.poisson(rate, generator=generator)
    model = ProfileEncoder(40, 8)
    model.initialize(x, torch.ones_like(x).bool(), x.sum(1))
    z = model.eval()(Cells(x=x, depth=x.sum(1)))
    assert_close(z.norm(dim=1), torch.ones(120))
    assert_close(model(Cells(x=3 * x, depth=3 * x.sum(1))), z, atol=1e-5, rtol=1e-4)
    inside, between = (z[:60] @ z[:60].T).mean(), (z[:60] @ z[60:].T).mean()
    assert inside > 0.5 > 0 > between
