"""The cell level of SPATIA: gene tokens and image tokens of a cell, fused."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.heads import TokenExpressionHead
from spatiagraph.losses import masked_image_loss, zero_inflated_negative_binomial_nll
from spatiagraph.nn import (
    Cells,
    GeneEncoder,
    GeneTokenEncoder,
    ImageEncoder,
    MaskedImageDecoder,
    MaskedImageEncoder,
    ProfileStart,
    TokenCellEncoder,
    TokenFusion,
)
from spatiagraph.nn.gene_tokens import GeneTokens
from spatiagraph.nn.protocols import GeneTokenEncoding

G, D, C = 12, 16, 24  # genes, gene channels, embedding
LABELS = 2


def vit(**options):
    return MaskedImageEncoder("test_vit", img_size=32, patch_size=8, **options)


def encoder(*, image=None, weight=1.0, profile=False, num_tokens=None, tokenizer="counts"):
    torch.manual_seed(0)
    normalization = "none" if tokenizer == "bins" else "log2p1"
    genes = GeneTokenEncoder(
        G, D, num_labels=LABELS, num_layers=1, dropout=0.0, normalization=normalization
    )
    image = vit() if image is None else image
    fusion = TokenFusion(
        D, image.channels, C, num_cell_tokens=2 + LABELS, weight=weight, dropout=0.0
    )
    tokens = TokenCellEncoder(C, genes, image, fusion, num_tokens=num_tokens, tokenizer=tokenizer)
    return ProfileStart(tokens, GeneEncoder(G, C)) if profile else tokens


@pytest.fixture
def cells():
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((6, G), 1.5), generator=generator)
    return x, torch.rand(6, 3, 32, 32, generator=generator)


def test_streams_have_the_published_shapes(cells):
    """SPATIA fact 9, on a small ViT: 16 patches and a class token, T = 2 + labels."""
    x, image = cells
    model = encoder().eval()
    streams = model.streams(Cells(x, image))
    assert streams.cell.shape == (6, C)
    assert streams.genes.shape == (6, 2 + LABELS + G, D)
    assert streams.image.shape == (6, 1 + 16, model.image.channels)
    assert model.train().streams(Cells(x, image)).image.shape == (6, 1 + 4, model.image.channels)


@pytest.mark.parametrize("num_tokens", [None, 7])
def test_two_evaluations_give_the_same_bits(cells, num_tokens):
    """SPATIA fact 10."""
    model = encoder(num_tokens=num_tokens, profile=True).eval()
    assert torch.equal(model(Cells(*cells)), model(Cells(*cells)))


def test_the_order_of_genes_means_nothing(cells):
    """SPATIA fact 11."""
    x, image = cells
    model = encoder().eval()
    streams = model.streams(Cells(x, image))
    tokens = model.genes(streams.sampled.ids, streams.sampled.values, x.sum(1))
    order = torch.randperm(G, generator=torch.Generator().manual_seed(1))
    turned = model.genes(streams.sampled.ids[:, order], streams.sampled.values[:, order], x.sum(1))
    first = 2 + LABELS
    assert_close(turned.tokens[:, :first], tokens.tokens[:, :first], rtol=0, atol=1e-5)
    assert_close(turned.tokens[:, first:], tokens.tokens[:, first:][:, order], rtol=0, atol=1e-5)


def test_without_weight_the_image_is_not_there(cells):
    """SPATIA fact 12."""
    x, image = cells
    model = encoder(weight=0.0).eval()
    assert_close(model(Cells(x, image)), model(Cells(x)), rtol=0, atol=0)
    assert not torch.equal(encoder().eval()(Cells(x, image)), encoder().eval()(Cells(x)))


def test_pixels_of_a_missing_image_are_never_looked_at(cells):
    """SPATIA fact 12."""
    x, image = cells
    model = encoder(profile=True).eval()
    model.gate.data.fill_(1.0)
    there = torch.tensor([True, False, True, True, False, True])
    blank = torch.where(there[:, None, None, None], image, torch.nan)
    expected = model(Cells(x, image))
    got = model(Cells(x, blank, image_mask=there))
    assert_close(got[there], expected[there])
    assert_close(got[~there], model(Cells(x))[~there])
    assert not torch.isclose(got[~there], expected[~there]).all()


def test_cells_without_genes_are_told_by_their_image_alone(cells):
    x, image = cells
    model = encoder(profile=True).eval()
    model.gate.data.fill_(1.0)
    there = torch.tensor([True, False, True, True, False, True])
    got = model(Cells(x, image, gene_present=there))
    other = torch.where(there[:, None], x, x.roll(1, 0))
    depth = x.sum(1)
    assert_close(model(Cells(other, image, gene_present=there, depth=depth)), got)
    assert_close(got[there], model(Cells(x, image))[there])


def test_hidden_genes_and_padding_change_nothing(cells):
    """SPATIA fact 13."""
    x, image = cells
    model = encoder(profile=True).eval()
    model.gate.data.fill_(1.0)
    mask = torch.arange(G).expand(6, G) < torch.tensor([[5], [9], [12], [7], [9], [8]])
    depth = x.sum(1)
    together = model(Cells(x, image, gene_mask=mask, depth=depth))
    changed = torch.where(mask, x, 99.0)
    assert_close(model(Cells(changed, image, gene_mask=mask, depth=depth)), together)
    alone = [model(Cells(x, image, mask, depth).take(slice(i, i + 1))) for i in range(6)]
    assert_close(torch.cat(alone), together, rtol=1e-5, atol=1e-5)


def test_gradients_cross_between_the_modalities(cells):
    """SPATIA fact 15."""
    x, image = cells
    model = encoder()
    head = TokenExpressionHead(D)
    decoder = MaskedImageDecoder.matching(model.image, hidden_channels=16, num_layers=1, heads=2)
    streams = model.streams(Cells(x, image))
    out = head(streams.genes[:, 2 + LABELS :], x.sum(1))
    zero_inflated_negative_binomial_nll(x, *out).mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.image.parameters())
    model.zero_grad()
    streams = model.streams(Cells(x, image))
    pixels = decoder(streams.image, streams.image_tokens.visible)
    masked_image_loss(pixels, image, streams.image_tokens.hidden).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.genes.parameters())


def test_means_share_out_the_counts(cells):
    """SPATIA fact 21: the means of a cell add up to its counts."""
    x, image = cells
    out = TokenExpressionHead(D)(
        encoder().streams(Cells(x, image)).genes[:, 2 + LABELS :], x.sum(1)
    )
    assert_close(out.log_mu.exp().sum(1), x.sum(1))
    pad = torch.zeros(6, G, dtype=torch.bool)
    pad[:, 4:] = True
    padded = TokenExpressionHead(D)(torch.randn(6, G, D), x.sum(1), pad)
    assert (padded.log_mu[:, 4:] == -torch.inf).all()


def test_the_bottleneck_knows_counts_from_cell_tokens_alone(cells):
    x, image = cells
    model = encoder().eval()
    streams = model.streams(Cells(x, image))
    asked = model.decode(streams)
    assert asked.shape == (6, 2 + LABELS + G, D)
    other = streams._replace(sampled=streams.sampled._replace(values=x.roll(1, 0)))
    assert_close(model.decode(other), asked)  # counts are not read again
    cells_swapped = streams._replace(genes=streams.genes.roll(1, 0))
    assert not torch.isclose(model.decode(cells_swapped), asked).all()


def test_a_profile_starts_as_the_embedding(cells):
    x, image = cells
    model = encoder(profile=True).eval()
    assert_close(model(Cells(x, image)), model.profile(x, None, x.sum(1)))


@pytest.mark.parametrize("name", ["test_convnext", "resnet18"])
def test_a_cnn_serves_as_image_encoder(cells, name):
    x, image = cells
    cnn = ImageEncoder(name, 20, tokens=True)
    assert encoder(image=cnn).eval()(Cells(x, image)).shape == (6, C)
    with pytest.raises(ValueError, match="tokens=True"):
        encoder(image=ImageEncoder(name, 20))(Cells(x, image))


class Counted(nn.Module):
    """Tokens of genes that are their counts; one of the cell, their sum."""

    num_genes, channels, num_cell_tokens = G, D, 1

    def forward(
        self, gene_ids, counts=None, depth=None, pad=None, value_mask=None, *, cell_tokens=None
    ):
        cell = counts.sum(1, keepdim=True)
        tokens = torch.cat([cell, counts], 1).unsqueeze(-1).expand(-1, -1, D)
        return GeneTokens(tokens, None, 1)

    def label_tokens(self, stream, num_labels):
        return stream[:, :1].expand(-1, num_labels, -1)


def test_an_encoder_from_outside_serves_as_gene_encoder(cells):
    genes = Counted()
    assert all(isinstance(x, GeneTokenEncoding) for x in (genes, encoder().genes))
    model = TokenCellEncoder(C, genes, num_tokens=None)
    x, _ = cells
    z = model(Cells(x))
    total = x.sum(1, keepdim=True)
    assert_close(z, model.project(total.expand(-1, D)))


def test_bins_do_not_change_when_a_cell_is_multiplied(cells):
    """SPATIA fact 6, through the encoder."""
    x, image = cells
    model = encoder(tokenizer="bins").eval()
    depth = x.sum(1)
    assert_close(model(Cells(7 * x, image, depth=depth)), model(Cells(x, image, depth=depth)))
    assert not torch.isclose(
        model(Cells(x.roll(1, 1), image, depth=depth)), model(Cells(x, image))
    ).all()


def test_chunks_change_nothing(cells):
    x, image = cells
    model = encoder(profile=True).eval()
    model.gate.data.fill_(1.0)
    with torch.no_grad():
        given = {"depth": x.sum(1), "image_mask": torch.ones(6, dtype=torch.bool)}
        given["gene_mask"] = torch.arange(G) < 9  # of all cells alike
        whole, parts = (model(Cells(x, image, **given), chunk_size=size) for size in (512, 4))
    assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_read_is_refused(cells):
    x, image = cells
    with pytest.raises(ValueError, match="got neither"):
        TokenCellEncoder(C)
    with pytest.raises(ValueError, match="'fusion' to go with"):
        TokenCellEncoder(C, image=vit())
    with pytest.raises(ValueError, match="'tokenizer' counts or bins"):
        TokenCellEncoder(C, GeneTokenEncoder(G, D), tokenizer="words")
    with pytest.raises(ValueError, match="got neither"):
        encoder()(Cells())
    with pytest.raises(ValueError, match=r"12 genes as in the model's panel, got 11"):
        encoder()(Cells(x[:, :11], image))
    images_alone = TokenCellEncoder(C, image=vit(), fusion=TokenFusion(D, 64, C))
    with pytest.raises(ValueError, match="an 'image' for the cells"):
        images_alone(Cells(x))
