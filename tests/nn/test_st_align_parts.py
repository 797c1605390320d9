"""Parts that ST-Align brought: small-image ResNet, tokenizers, niche genes, fusion, heads."""

import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm

from spatiagraph.nn import (
    ABFN,
    ConvTokenizer,
    FrozenImageEncoder,
    NicheGeneEncoder,
    ProjectionHead,
    SpotImageEncoder,
    TokenAttention,
    VectorTokenizer,
)
from spatiagraph.nn.niche_genes import TokenTransformerLayer


def number(module):
    return sum(p.numel() for p in module.parameters())


def filled(module, seed=0):
    """The module in evaluation mode with every parameter drawn at random, norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)
    return module.eval()


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_parameters_of_the_published_sizes():
    """ST-Align fact A5."""
    with torch.device("meta"):
        genes = NicheGeneEncoder(4384)
        assert number(genes) == 21_029_680
        assert number(genes.layers[0]) == 2_248_920
        assert isinstance(genes.layers[0], TokenTransformerLayer)
        assert number(TokenAttention(512)) == 1_051_136
        assert number(ABFN()) == 2_202_240
        assert number(ProjectionHead()) == 10_488_832
        assert number(ConvTokenizer()) == 16
        assert number(ConvTokenizer(stride=2)) == 24
    assert number(SpotImageEncoder()) == 24_549_440


@pytest.mark.parametrize("side", [8, 9, 26, 52, 96])
def test_any_side_of_a_spot_image_works(side):
    """ST-Align fact A4, the spot image: a total stride of 8."""
    encoder = SpotImageEncoder("test_resnet", 64).eval()
    image = torch.rand(2, 3, side, side)
    assert encoder(image).shape == (2, 64)
    features = encoder.backbone.forward_features(image)
    assert features.shape[2:] == (-(-side // 8),) * 2


def test_the_stem_sees_every_pixel():
    """With the stem of timm, and its pooling, a spot of 26 pixels would be one of features."""
    backbone = SpotImageEncoder("resnet50", 8).backbone
    assert backbone.conv1.weight.shape == (64, 3, 3, 3)
    assert backbone.conv1.stride == (1, 1)
    assert [layer[0].conv2.stride[0] for layer in (backbone.layer1, backbone.layer2)] == [1, 2]
    with pytest.raises(ValueError, match="a ResNet of timm, got 'test_vit'"):
        SpotImageEncoder("test_vit")


def test_a_frozen_backbone_neither_learns_nor_changes():
    """ST-Align fact A3, frozen branches."""
    encoder = FrozenImageEncoder("test_resnet", size_px=32)
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    image = torch.rand(4, 3, 20, 20, requires_grad=True)
    first = encoder(image)
    assert first.shape == (4, encoder.channels)
    assert not first.requires_grad
    assert torch.equal(first, encoder(image))
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert encoder.is_frozen


def test_the_stem_of_a_frozen_backbone_learns():
    encoder = FrozenImageEncoder("test_resnet", size_px=32, stem=True).train()
    encoder(torch.rand(4, 3, 20, 20)).square().sum().backward()
    learned = {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert learned == {"norm.weight", "norm.bias", "conv.weight", "conv.bias"}
    assert not encoder.is_frozen
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == 6 + 84


def test_tokens_of_a_convolution_are_one_direction_and_those_of_linear_maps_eight():
    """ST-Align fact A8."""
    vector = random(3, 512)
    conv = filled(ConvTokenizer())
    with torch.no_grad():  # of a tiny a_t the norm sees its own eps
        conv.conv.weight.copy_(torch.tensor([-3, -2, -1, -0.5, 0.5, 1, 2, 3.0]).view(8, 1, 1))
    tokens = layer_norm(conv(vector), (512,))
    sign = conv.conv.weight.flatten().sign()
    expected = sign[:, None] * layer_norm(vector, (512,))[:, None]
    torch.testing.assert_close(tokens, expected, atol=1e-4, rtol=0)
    assert torch.linalg.matrix_rank(tokens, rtol=1e-3).tolist() == [1, 1, 1]
    linear = layer_norm(VectorTokenizer(512, 512)(vector), (512,))
    assert torch.linalg.matrix_rank(linear, rtol=1e-3).tolist() == [8, 8, 8]
    assert VectorTokenizer(512, 512, rank=64)(vector).shape == (3, 8, 512)
    strided = layer_norm(ConvTokenizer(stride=2)(random(3, 1024)), (512,))
    assert torch.linalg.matrix_rank(strided, rtol=1e-3).tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="a stride of 2 divides, got 5"):
        ConvTokenizer(stride=2)(random(1, 5))


def small(num_genes):
    return NicheGeneEncoder(
        num_genes,
        16,
        hidden_channels=(12, 8),
        num_layers=2,
        heads=2,
        head_channels=4,
        mlp_channels=10,
    )


def test_genes_are_padded_to_a_multiple_of_the_tokens():
    """ST-Align fact A4, the width: 23 genes and a column of zeros are 24."""
    odd, even = small(23), filled(small(24))
    odd.load_state_dict(even.state_dict())
    x = random(3, 23)
    zero = torch.cat([x, torch.zeros(3, 1)], 1)
    assert torch.equal(odd.eval()(x), even(zero))
    assert odd(x).shape == (3, 8, 16)
    with torch.device("meta"):
        assert number(NicheGeneEncoder(4383)) == number(NicheGeneEncoder(4384))
    with pytest.raises(ValueError, match=r"expression \[N, 24\], got \[3, 23\]"):
        even(x)


@pytest.fixture
def fusion():
    return filled(ABFN(32, 4, 8, hidden_channels=16))


def test_without_values_the_answer_is_the_same_for_every_query(fusion):
    """ST-Align fact A10, first part."""
    attention = fusion.image_attention
    nn.init.zeros_(attention.value.weight)
    found = attention(random(2, 8, 32), random(2, 8, 32, seed=1))
    assert torch.equal(found, attention.out.bias.expand_as(found))


def test_the_order_of_gene_tokens(fusion):
    """ST-Align fact A10, second part: what images ask for is a set."""
    image, genes = random(2, 8, 32), random(2, 8, 32, seed=1)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    asked = fusion.image_attention
    torch.testing.assert_close(asked(image, genes), asked(image, genes[:, order]))
    answer = fusion.gene_attention
    torch.testing.assert_close(answer(genes, image)[:, order], answer(genes[:, order], image))


def test_attention_maps_are_those_of_the_forward_pass(fusion):
    """ST-Align fact A10, third part, and the maps that the reference threw away."""
    image, genes = random(2, 8, 32), random(2, 8, 32, seed=1)
    maps = fusion.maps(image, genes)
    for share in maps:
        assert share.shape == (2, 4, 8, 8)
        torch.testing.assert_close(share.sum(3), torch.ones(2, 4, 8))
    part = fusion.image_attention
    value = part.value(part.norm_context(genes)).unflatten(2, (4, 8)).transpose(1, 2)
    message = (maps.image @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(part.out(message), part(image, genes))


def test_fused_tokens_are_normed_and_the_image_comes_first(fusion):
    """ST-Align fact A10, fourth part."""
    image, genes = random(2, 8, 32), random(2, 8, 32, seed=1)
    nn.init.ones_(fusion.norm.weight)
    nn.init.zeros_(fusion.norm.bias)
    z = fusion(image, genes)
    torch.testing.assert_close(z.mean(2), torch.zeros(2, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(2, unbiased=False), torch.ones(2, 8), atol=1e-3, rtol=0)
    whole = torch.cat(
        [
            fusion.image_mlp(fusion.image_attention(image, genes)),
            fusion.gene_mlp(fusion.gene_attention(genes, image)),
        ],
        2,
    )
    torch.testing.assert_close(z, layer_norm(whole, (32,)))
    with pytest.raises(ValueError, match="an even number of channels, got 5"):
        ABFN(5)
