"""The hybrid encoder: its sizes, what it hears, and that padding is heard by none."""

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn import MaskedBatchNorm, Squeezeformer, alibi_bias, alibi_slopes
from spatiagraph.nn.squeezeformer import BiasedAttention


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Squeezeformer(32, 2, 4, dropout=0.0, drop_path=0.0)


def padded(x, lengths, more=0, filling=0.0):
    """Sequences of some lengths with something in their padding, and the mask."""
    x = torch.nn.functional.pad(x, (0, 0, 0, more))
    mask = torch.arange(x.size(1)) < torch.tensor(lengths)[:, None]
    return torch.where(mask[..., None], x, torch.tensor(filling)), mask


@pytest.mark.parametrize("channels", [64, 512])
def test_sizes_to_the_parameter(channels):
    """SpatialFormer facts F1 and F2: the blocks."""
    (block,) = Squeezeformer(channels, 1, 8).blocks
    attention = size(block.attention) + size(block.mlps[1])
    attention += size(block.scales[2:]) + size(block.norms[2:])
    assert attention == 10 * channels**2 + 17 * channels
    assert size(block) - attention == 9 * channels**2 + 35 * channels
    assert size(block) == {64: 81_152, 512: 5_007_360}[channels]


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(encoder, training):
    """SpatialFormer fact F7."""
    encoder.train(training)
    x, lengths = torch.randn(3, 20, 32), [20, 7, 13]
    few, mask = padded(x, lengths)
    expected = encoder(few, mask)
    many, wide = padded(x, lengths, more=33, filling=9.0)
    found = encoder(many, wide)[:, :20]
    assert_close(found[mask], expected[mask], atol=1e-5, rtol=0)
    if training:
        assert not torch.equal(encoder.blocks[0].convolution.norm.running_var, torch.ones(32))


def test_sequences_alone_are_as_they_are_together(encoder):
    """SpatialFormer fact F8."""
    encoder.eval()
    x, lengths = torch.randn(3, 20, 32), [20, 7, 13]
    together, _ = padded(x, lengths)
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    out = encoder(together, mask)
    for i, n in enumerate(lengths):
        assert_close(encoder(x[i : i + 1, :n])[0], out[i, :n], atol=1e-5, rtol=0)


def test_a_convolution_hears_eight_tokens_to_either_side():
    """SpatialFormer fact F9."""
    torch.manual_seed(0)
    encoder = Squeezeformer(16, 1, 4).eval()
    with torch.no_grad():
        encoder.blocks[0].attention.out.weight.zero_()
        encoder.blocks[0].attention.out.bias.zero_()
    x = torch.randn(1, 60, 16)
    moved = x.clone()
    moved[0, 30] += 1
    changed = (encoder(moved) - encoder(x)).abs().amax(2)[0] > 1e-7
    assert changed.nonzero().flatten().tolist() == list(range(22, 39))


def test_order_is_heard_through_slopes_and_convolutions_alone():
    """SpatialFormer fact F10."""
    torch.manual_seed(0)
    encoder = Squeezeformer(32, 2, 4).eval()
    x = torch.randn(2, 15, 32)
    order = torch.cat([torch.tensor([0]), 1 + torch.randperm(14)])
    with torch.no_grad():
        for block in encoder.blocks:
            block.convolution.depthwise.weight.zero_()
    assert (encoder(x[:, order])[:, 0] - encoder(x)[:, 0]).abs().max() > 1e-3
    encoder.slopes.zero_()
    assert_close(encoder(x[:, order])[:, 0], encoder(x)[:, 0], atol=1e-5, rtol=0)


def test_slopes_and_biases_are_those_of_the_paper():
    """SpatialFormer fact F11."""
    assert_close(alibi_slopes(8), 2.0 ** -torch.arange(1.0, 9))
    assert_close(alibi_slopes(6), torch.tensor([1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]))
    many = alibi_slopes(64)
    assert_close(many[[0, 63]], torch.tensor([0.91700, 0.00390625]), atol=1e-5, rtol=0)
    place = torch.arange(7.0)
    bias = alibi_bias(alibi_slopes(8), place)
    assert_close(bias, bias.mT)
    assert (bias.diagonal(dim1=1, dim2=2) == 0).all()
    assert_close(alibi_bias(alibi_slopes(8), place + 3), bias)
    assert bias[0, 2, 5] == -1.5


@pytest.mark.parametrize("scale", ["head_dim", "model_dim"])
def test_fused_attention_is_the_plain_one(scale):
    torch.manual_seed(0)
    layer = BiasedAttention(24, 3, scale=scale).double()
    x, mask = torch.randn(2, 9, 24).double(), torch.arange(9) < torch.tensor([[9], [5]])
    bias = alibi_bias(alibi_slopes(3), torch.arange(9.0)).double()
    q, k, v = (t.unflatten(2, (3, 8)).transpose(1, 2) for t in layer.qkv(x).chunk(3, 2))
    logits = q @ k.mT / (8 if scale == "head_dim" else 24) ** 0.5 + bias
    weights = logits.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
    expected = layer.out((weights @ v).transpose(1, 2).flatten(2))
    assert_close(layer(x, mask, bias), expected)
    assert_close(layer(x[:1], None, bias), expected[:1])
    assert layer.bfloat16()(x.bfloat16(), mask, bias.bfloat16()).isfinite().all()


def test_masked_batch_norm_is_batch_norm_of_the_real_tokens():
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(6), torch.nn.BatchNorm1d(6, momentum=0.05)
    x, mask = padded(3 + 2 * torch.randn(4, 9, 6), [9, 3, 5, 1], filling=100.0)
    assert_close(ours(x, mask)[mask], theirs(x[mask]))
    assert_close(ours.running_var, theirs.running_var)
    assert_close(ours.eval()(x, mask)[mask], theirs.eval()(x[mask]))


def test_gradients_reach_every_parameter_and_branches_are_left_out():
    torch.manual_seed(0)
    encoder = Squeezeformer(16, 1, 2, drop_path=0.5)
    x, mask = padded(torch.randn(8, 6, 16), [6, 2, 4, 6, 3, 6, 1, 5])
    encoder(x, mask)[mask].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    branch = encoder.blocks[0].drop_path(torch.ones(1000, 2, 3))
    assert set(branch.unique().tolist()) == {0.0, 2.0}
    assert abs(branch.mean() - 1) < 0.1


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="'heads' to divide 30"):
        Squeezeformer(30, 1, 4)
    with pytest.raises(ValueError, match="odd 'kernel_size', got 4"):
        Squeezeformer(32, 1, 4, kernel_size=4)
