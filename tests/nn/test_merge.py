"""Attention among fewer tokens."""

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch.testing import assert_close

from spatiagraph.nn import TokenMergingProcessor, match_tokens, set_token_merging

GRIDS = [(4, 4), (6, 8), (5, 7), (1, 9)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(processor=None, **options):
    torch.manual_seed(0)
    defaults = {"heads": 2, "dim_head": 8, "norm_num_groups": 4, "residual_connection": True}
    attn = Attention(16, **{**defaults, "rescale_output_factor": 1.4, **options})
    if processor is not None:
        attn.set_processor(processor)
    return attn.eval()


@pytest.mark.parametrize("x", [draw(2, 16, 4, 6), draw(2, 24, 16)], ids=["image", "tokens"])
def test_no_merging_is_the_attention_of_diffusers_bit_for_bit(x):
    """SPATIA fact 40."""
    known = layer(AttnProcessor2_0())(x)
    assert torch.equal(layer(TokenMergingProcessor(0))(x), known)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("grid", GRIDS)
def test_merging_keeps_the_shape_of_images_and_of_tokens(ratio, grid):
    """SPATIA fact 40."""
    x = draw(2, 16, *grid)
    found = layer(TokenMergingProcessor(ratio))(x)
    assert found.shape == x.shape
    assert found.isfinite().all()
    tokens = x.flatten(2).transpose(1, 2)
    processor = TokenMergingProcessor(ratio, grid=grid)
    assert_close(layer(processor)(tokens), found.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("options", [{}, {"qk_norm": "layer_norm"}, {"norm_num_groups": None}])
def test_merging_equal_tokens_loses_nothing(ratio, options):
    """Each 2 × 2 cell is of one colour; a merged token counts by its size."""
    x = draw(3, 16, 4, 5).repeat_interleave(2, 2).repeat_interleave(2, 3)
    known = layer(**options)(x)
    assert_close(layer(TokenMergingProcessor(ratio), **options)(x), known, rtol=1e-4, atol=1e-5)


def test_a_large_group_of_equal_tokens_counts_by_its_size():
    x = draw(1, 16, 6, 6)
    x[:, :, :4, :4] = x[:, :, :1, :1]
    attn = layer(TokenMergingProcessor(12 / 36))
    assert_close(attn(x), layer()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seed", [None, 3])
def test_tokens_are_averaged_and_come_back_to_their_places(grid, seed):
    num = grid[0] * grid[1]
    most = num - -(-grid[0] // 2) * -(-grid[1] // 2)
    for num_merged in (0, 1, most // 2, most):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        x = draw(2, num, 8)
        merge = match_tokens(x, num_merged, grid, generator=generator)
        assert merge.size.shape == (2, num - num_merged)
        assert (merge.size.sum(1) == num).all()
        back = merge.unmerge(merge.merge(x))
        for i in range(2):
            for j in range(num):
                group = merge.owner[i] == merge.owner[i, j]
                assert_close(back[i, j], x[i, group].mean(0))
            assert merge.owner[i].unique().numel() == num - num_merged  # none is empty


def test_the_most_similar_tokens_are_merged_into_the_nearest_destination():
    """By hand: the destination of each cell is its upper left token."""
    keys = torch.eye(4)[torch.tensor([[0, 3, 1, 3], [0, 3, 3, 2]]).flatten()]
    keys[4] = torch.tensor([0.1, 1.0, 0.0, 0.0])  # nearest to the destination of the other cell
    merge = match_tokens(keys.unsqueeze(0), 1, (2, 4))
    assert merge.owner.tolist() == [[0, 1, 2, 3, 2, 4, 5, 6]]
    assert merge.size.tolist() == [[1, 1, 2, 1, 1, 1, 1]]


def test_images_of_a_batch_do_not_see_each_other():
    x, order = draw(4, 16, 6, 6), torch.tensor([2, 0, 3, 1])
    attn = layer(TokenMergingProcessor(0.5))
    assert_close(attn(x[order]), attn(x)[order])
    assert_close(attn(x[:1]), attn(x)[:1])


def test_chance_enters_only_by_a_generator():
    x = draw(2, 16, 8, 8)
    state = torch.get_rng_state()
    fixed = layer(TokenMergingProcessor(0.5))
    assert torch.equal(fixed(x), fixed(x))
    assert torch.equal(torch.get_rng_state(), state)
    drawn = [
        layer(TokenMergingProcessor(0.5, generator=torch.Generator().manual_seed(s)))(x)
        for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_gradients_reach_image_and_weights():
    attn, x = layer(TokenMergingProcessor(0.6)), draw(2, 16, 4, 4).requires_grad_()
    attn(x).square().sum().backward()
    assert (x.grad != 0).all()
    assert all((p.grad != 0).any() for p in attn.parameters())


def networks():
    shared = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16),
        "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 8,
    }  # fmt: skip
    torch.manual_seed(0)
    plain = UNet2DModel(
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **shared,
    )
    cross = UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=6,
        **shared,
    )
    return [(plain.eval(), {}), (cross.eval(), {"encoder_hidden_states": draw(2, 3, 6)})]


@pytest.mark.parametrize(("network", "inputs"), networks(), ids=["image", "condition"])
def test_a_whole_network_merges_and_is_put_back(network, inputs):
    x = draw(2, 1, 8, 8)
    with torch.no_grad():
        known = network(x, 3, **inputs).sample
        set_token_merging(network, 0.5)
        merged = network(x, 3, **inputs).sample
        set_token_merging(network, 0)
        back = network(x, 3, **inputs).sample
    assert merged.shape == known.shape
    assert not torch.equal(merged, known)
    assert torch.equal(back, known)


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(ValueError, match="from 0 to 0.75.* got 0.8"):
        TokenMergingProcessor(0.8)
    with pytest.raises(ValueError, match="a square grid, got 12: give its rows"):
        layer(TokenMergingProcessor(0.5))(draw(1, 12, 16))
    with pytest.raises(ValueError, match=r"a \(2, 5\) grid, got 12"):
        layer(TokenMergingProcessor(0.5, grid=(2, 5)))(draw(1, 12, 16))
    with pytest.raises(ValueError, match="3 × 3 tokens, got 8"):
        match_tokens(draw(1, 8, 4), 2, (3, 3))
    with pytest.raises(ValueError, match="at most 5 of 3 × 3 tokens, got 6"):
        match_tokens(draw(1, 9, 4), 6, (3, 3))
    with pytest.raises(ValueError, match="self-attention, got Linear"):
        set_token_merging(torch.nn.Linear(2, 2), 0.5)
