import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from spatiagraph._config import from_config, to_config
from spatiagraph.nn.fusion import fill_missing
from spatiagraph.nn.gene_tokens import GeneTokenEncoder
from spatiagraph.nn.masked_image import MaskedImageDecoder, MaskedImageEncoder
from spatiagraph.nn.patches import patchify
from spatiagraph.nn.token_fusion import TokenFusion

DIRECTIONS = ["both", "gene_queries", "image_queries"]
PRESENT = torch.tensor([True, False, True])


def fusion(**options) -> TokenFusion:
    torch.manual_seed(0)
    return TokenFusion(8, 12, **{"heads": 2, "num_cell_tokens": 3, **options}).eval()


def streams() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    genes = torch.randn(3, 7, 8, generator=generator)
    return genes, torch.randn(3, 5, 12, generator=generator)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_cell_embedding_has_512_channels_and_streams_keep_their_shape(direction):
    """SPATIA fact 9."""
    genes, image = streams()
    out = fusion(direction=direction)(genes, image)
    assert out.cell.shape == (3, 512)
    assert out.genes.shape == genes.shape
    assert out.image.shape == image.shape


def test_fused_streams_follow_the_formula():
    model, (genes, image) = fusion(weight=0.25), streams()
    out = model(genes, image)
    change = model.fuse_genes(genes, image)
    assert_close(out.genes, genes + 0.25 * change)
    assert_close(out.image, image + 0.25 * model.fuse_image(image, genes))
    read = torch.cat([out.genes[:, :3].mean(1), 0.25 * out.image[:, 0]], 1)
    assert_close(out.cell, model.project(read))


def test_double_residual_counts_the_query_twice():
    """SPATIA fact 12: weight 0 is the identity here as well."""
    genes, image = streams()
    once, twice = fusion(weight=0.5), fusion(weight=0.5, residual="double")
    difference = twice(genes, image).genes - once(genes, image).genes
    assert_close(difference, 0.5 * genes, rtol=1e-5, atol=1e-6)
    none = fusion(weight=0.0, residual="double")(genes, image)
    assert_close(none.genes, genes, rtol=0, atol=0)


@pytest.mark.parametrize("direction", ["both", "gene_queries"])
def test_fusion_with_weight_0_is_the_model_of_genes_alone(direction):
    """SPATIA fact 12."""
    model, (genes, image) = fusion(weight=0.0, direction=direction), streams()
    out, alone = model(genes, image), model(genes, None)
    assert_close(out.genes, genes, rtol=0, atol=0)
    assert_close(out.image, image, rtol=0, atol=0)
    assert_close(out.cell, alone.cell, rtol=0, atol=0)
    awake = fusion(direction=direction)
    assert not torch.allclose(awake(genes, image).cell, awake(genes, None).cell)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_fusion_never_looks_at_tokens_of_a_missing_image(direction):
    """SPATIA fact 12: a missing image is image_mask=False, whatever pixels are passed."""
    model, (genes, image) = fusion(direction=direction), streams()
    other = torch.where(PRESENT[:, None, None], image, torch.nan)
    first = model(genes, image, image_mask=PRESENT)
    second = model(genes, other, image_mask=PRESENT)
    without = model(genes, None)
    everything = model(genes, image)
    for name in ("cell", "genes"):
        assert_close(getattr(second, name), getattr(first, name), rtol=0, atol=0)
        assert_close(getattr(first, name)[~PRESENT], getattr(without, name)[~PRESENT])
        assert_close(getattr(first, name)[PRESENT], getattr(everything, name)[PRESENT])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_fusion_never_looks_at_tokens_of_missing_genes(direction):
    model, (genes, image) = fusion(direction=direction), streams()
    other = torch.where(PRESENT[:, None, None], genes, torch.nan)
    pad = (torch.arange(7) >= 6).expand(3, -1)
    first = model(genes, image, gene_present=PRESENT, gene_pad=pad)
    second = model(other, image, gene_present=PRESENT, gene_pad=pad)
    without = model(None, image)
    for name in ("cell", "image"):
        assert_close(getattr(second, name), getattr(first, name), rtol=0, atol=0)
        assert_close(getattr(first, name)[~PRESENT], getattr(without, name)[~PRESENT])
    assert without.genes.shape == (3, 3, 8)


def test_the_half_of_a_missing_modality_is_its_null_token():
    model, (genes, image) = fusion(), streams()
    out = model(genes, None)
    halves = [out.genes[:, :3].mean(1), model.image_null.expand(3, -1)]
    assert_close(out.cell, model.project(torch.cat(halves, 1)))
    out = model(None, image)
    halves = [model.gene_null.expand(3, -1), out.image[:, 0]]
    assert_close(out.cell, model.project(torch.cat(halves, 1)))


def test_order_of_genes_and_of_patches_means_nothing_to_the_cell():
    """SPATIA fact 11."""
    model, (genes, image) = fusion(), streams()
    genes_order, image_order = torch.tensor([0, 1, 2, 6, 3, 5, 4]), torch.tensor([0, 3, 4, 1, 2])
    before, after = model(genes, image), model(genes[:, genes_order], image[:, image_order])
    assert_close(after.cell, before.cell, rtol=1e-5, atol=1e-5)
    assert_close(after.genes, before.genes[:, genes_order], rtol=1e-5, atol=1e-5)


def test_padding_of_the_gene_stream_changes_nothing():
    """SPATIA fact 13."""
    model, (genes, image) = fusion(), streams()
    padded = torch.cat([genes, torch.full((3, 2, 8), 50.0)], 1)
    before = model(genes, image)
    after = model(padded, image, gene_pad=(torch.arange(9) >= 7).expand(3, -1))
    assert_close(after.cell, before.cell, rtol=1e-5, atol=1e-5)
    assert_close(after.image, before.image, rtol=1e-5, atol=1e-5)
    assert_close(after.genes[:, :7], before.genes, rtol=1e-5, atol=1e-5)


def test_two_passes_give_the_same_bits():
    """SPATIA fact 10."""
    model = fusion(dropout=0.5)
    assert_close(model(*streams()).cell, model(*streams()).cell, rtol=0, atol=0)
    assert not torch.equal(model.train()(*streams()).cell, model(*streams()).cell)


def test_each_modality_learns_from_what_the_other_decodes():
    """SPATIA fact 15."""
    torch.manual_seed(0)
    read_genes = GeneTokenEncoder(9, 8, num_layers=1, heads=2, num_labels=1)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}
    read_image = MaskedImageEncoder("vit_tiny_patch16_224", in_channels=1, **sizes)
    paint = MaskedImageDecoder.matching(read_image, hidden_channels=8, num_layers=1, heads=2)
    crops = torch.rand(3, 1, 32, 32)
    genes = read_genes(torch.randint(9, (3, 4)), torch.rand(3, 4), torch.rand(3) * 50)
    image = read_image(crops)
    fused = fusion()(genes.tokens, image.tokens, gene_pad=genes.pad)
    counts = fused.genes[:, genes.num_cell_tokens :].square().mean()
    difference = paint(fused.image, image.visible) - patchify(crops, 8)
    pixels = difference[image.hidden].square().mean()

    def reached(loss: Tensor, module: torch.nn.Module) -> bool:
        parameters = list(module.parameters())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return all(g is not None and bool(g.any()) for g in gradients)

    assert reached(counts, read_image.backbone.blocks)
    assert reached(counts, read_image.backbone.patch_embed)
    assert reached(pixels, read_genes.transformer)
    assert reached(pixels, read_genes.value)


def test_gradients_reach_every_parameter():
    model = fusion().train()
    out = model(*streams(), image_mask=PRESENT, gene_present=~PRESENT)
    sum(part.square().sum() for part in out).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_fusion_is_rebuilt_from_its_configuration_and_weights():
    model = fusion(weight=0.5, direction="gene_queries", residual="double")
    again = from_config(to_config(model)).eval()
    again.load_state_dict(model.state_dict())
    assert_close(again(*streams()).cell, model(*streams()).cell, rtol=0, atol=0)
    assert str(again) == str(model)


@pytest.mark.parametrize(
    ("genes", "image", "pad", "message"),
    [
        (None, None, None, "got neither"),
        ((3, 2, 8), (3, 5, 12), None, r"\[N, 3 cell tokens or more, 8\], got \[3, 2, 8\]"),
        ((3, 8), None, None, r"got \[3, 8\]"),
        ((3, 7, 8), (3, 12), None, r"image tokens \[N, S, 12\], got \[3, 12\]"),
        ((3, 7, 8), (2, 5, 12), None, "genes of 3 and images of 2"),
        ((3, 7, 8), (3, 5, 12), (3, 4), r"'gene_pad' \[3, 7\] .* got \[3, 4\]"),
    ],
)
def test_fusion_says_what_does_not_fit(genes, image, pad, message):
    tokens = [None if shape is None else torch.zeros(shape) for shape in (genes, image)]
    mask = None if pad is None else torch.zeros(pad, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        fusion()(*tokens, gene_pad=mask)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"direction": "image"}, "got 'image'"),
        ({"residual": "twice"}, "got 'twice'"),
        ({"weight": 1.5}, "from 0 to 1, got 1.5"),
        ({"heads": 3}, "divide 8 channels, got 3"),
    ],
)
def test_fusion_rejects_unknown_options(option, message):
    with pytest.raises(ValueError, match=message):
        fusion(**option)


@pytest.mark.parametrize("shape", [(3, 8), (3, 4, 8)])
def test_missing_tokens_are_filled_whole(shape):
    filled = fill_missing(torch.zeros(shape), torch.arange(8.0), PRESENT)
    assert not filled[PRESENT].any()
    assert_close(filled[1], torch.arange(8.0).expand(shape[1:]))
