import pytest
import torch
from torch.testing import assert_close

from spatiagraph._config import from_config, to_config
from spatiagraph.nn import CrossAttention


def test_cross_attention_matches_a_loop_over_heads():
    torch.manual_seed(0)
    block = CrossAttention(8, 2).eval()
    query, memory = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    weights = block.attention.in_proj_weight.chunk(3)
    inputs = (block.norm_query(query), memory, memory)
    q, k, v = (x @ w.mT for x, w in zip(inputs, weights, strict=True))
    heads = [
        (q[..., part] @ k[..., part].mT / 2).softmax(-1) @ v[..., part]
        for part in (slice(0, 4), slice(4, 8))
    ]
    change = block.attention.out_proj(torch.cat(heads, -1))
    expected = change + block.mlp(block.norm_mlp(query + change))
    assert_close(block(query, memory), expected)
    assert block.mlp[0].out_features == 4


def test_padded_memory_is_not_seen():
    """SPATIA fact 13."""
    torch.manual_seed(0)
    block, query, memory = CrossAttention(8, 2).eval(), torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    pad = (torch.arange(5) >= 3).expand(3, -1)
    assert_close(block(query, memory, pad), block(query, memory[:, :3]))


def test_cross_attention_rejects_heads_that_do_not_divide_channels():
    with pytest.raises(ValueError, match="divide 8 channels, got 3"):
        CrossAttention(8, 3)


def test_arguments_saved_by_an_older_name_are_read():
    config = to_config(CrossAttention(8, 2, memory_channels=5))
    config["args"]["context_channels"] = config["args"].pop("memory_channels")
    assert from_config(config).linear.in_features == 5
