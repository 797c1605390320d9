import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn import CrossAttention


def test_cross_attention_matches_a_loop_over_heads():
    torch.manual_seed(0)
    block = CrossAttention(8, 2).eval()
    query, context = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    weights = block.attention.in_proj_weight.chunk(3)
    inputs = (block.norm_query(query), context, context)
    q, k, v = (x @ w.mT for x, w in zip(inputs, weights, strict=True))
    heads = [
        (q[..., part] @ k[..., part].mT / 2).softmax(-1) @ v[..., part]
        for part in (slice(0, 4), slice(4, 8))
    ]
    change = block.attention.out_proj(torch.cat(heads, -1))
    expected = change + block.mlp(block.norm_mlp(query + change))
    assert_close(block(query, context), expected)
    assert block.mlp[0].out_features == 4


def test_padded_context_is_not_seen():
    """SPATIA fact 13."""
    torch.manual_seed(0)
    block, query, context = CrossAttention(8, 2).eval(), torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    pad = (torch.arange(5) >= 3).expand(3, -1)
    assert_close(block(query, context, pad), block(query, context[:, :3]))


def test_cross_attention_rejects_heads_that_do_not_divide_channels():
    with pytest.raises(ValueError, match="divide 8 channels, got 3"):
        CrossAttention(8, 3)
