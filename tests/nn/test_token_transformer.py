import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.nn.token_transformer import TokenTransformer, TokenTransformerLayer


def test_layer_matches_the_encoder_layer_of_torch():
    torch.manual_seed(0)
    ours = TokenTransformerLayer(8, 2, mlp_ratio=2.0).eval()
    theirs = nn.TransformerEncoderLayer(
        8, 2, 16, 0.0, activation="gelu", batch_first=True, norm_first=True
    )
    pairs = {
        "norm_attention": theirs.norm1,
        "out": theirs.self_attn.out_proj,
        "norm_mlp": theirs.norm2,
        "mlp.0": theirs.linear1,
        "mlp.3": theirs.linear2,
    }
    for name, module in pairs.items():
        module.load_state_dict(ours.get_submodule(name).state_dict())
    theirs.self_attn.in_proj_weight.data = ours.qkv.weight.data
    theirs.self_attn.in_proj_bias.data = ours.qkv.bias.data
    h, pad = torch.randn(3, 5, 8), torch.arange(5) >= torch.tensor([[5], [3], [1]])
    assert_close(ours(h, pad), theirs(h, src_key_padding_mask=pad))
    assert_close(ours(h), theirs(h))


def test_transformer_drops_only_in_training():
    model, h = TokenTransformer(8, 2, dropout=0.5), torch.randn(2, 3, 8)
    assert not torch.equal(model(h), model(h))
    model.eval()
    assert_close(model(h), model(h), rtol=0, atol=0)


def test_layer_rejects_heads_that_do_not_divide_channels():
    with pytest.raises(ValueError, match="divide 8 channels, got 3"):
        TokenTransformerLayer(8, 3)
