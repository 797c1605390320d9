import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn import (
    CellEncoder,
    Cells,
    ConcatFusion,
    CrossModalFusion,
    GateFusion,
    GeneEncoder,
)
from spatiagraph.nn.image import ImageEncoder

FUSIONS = [ConcatFusion, GateFusion, CrossModalFusion]
PRESENT = torch.tensor([True, False, True, True, False])


def awake(fusion: torch.nn.Module) -> torch.nn.Module:
    """Every parameter away from its start, so that the image counts."""
    torch.manual_seed(0)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return fusion


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("shape", [(5, 8), (5, 3, 8)])
def test_fusion_starts_as_the_identity_on_genes(fusion, shape):
    """SPATIA fact 12: fusion weight 0 gives the gene-only model exactly."""
    genes = torch.randn(5, 8)
    assert_close(fusion(8)(genes, torch.randn(shape)), genes, rtol=0, atol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_never_looks_at_pixels_of_a_missing_image(fusion):
    """SPATIA fact 12: a missing image is image_mask=False, whatever pixels are passed."""
    module, genes = awake(fusion(8)), torch.randn(5, 8)
    image, other = torch.randn(5, 3, 8), torch.randn(5, 3, 8)
    first = module(genes, image, None, PRESENT)
    second = module(genes, torch.where(PRESENT[:, None, None], image, other), None, PRESENT)
    assert_close(first, second, rtol=0, atol=0)
    assert_close(module(genes, image, None, ~PRESENT)[0], module(genes, None)[0])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_replaces_missing_genes_by_its_null_token(fusion):
    module, image = awake(fusion(8)), torch.randn(5, 8)
    without = module(torch.randn(5, 8), image, torch.zeros(5, dtype=torch.bool))
    assert_close(without, module(None, image))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_refuses_a_cell_without_anything(fusion):
    with pytest.raises(ValueError, match="got neither"):
        fusion(8)(None, None)


def test_cell_encoder_encodes_only_crops_that_exist():
    torch.manual_seed(0)
    image = ImageEncoder("test_vit", 8, in_channels=1, img_size=32, patch_size=16)
    encoder = CellEncoder(GeneEncoder(6, 8), image, awake(CrossModalFusion(8))).eval()
    x, crops = torch.rand(5, 6), torch.rand(5, 1, 32, 32)
    out = encoder(Cells(x, crops, image_mask=PRESENT))
    blank = torch.where(PRESENT[:, None, None, None], crops, torch.nan)
    assert_close(out, encoder(Cells(x, blank, image_mask=PRESENT)))
    assert_close(out[PRESENT], encoder(Cells(x, crops))[PRESENT])


def test_cell_encoder_needs_an_encoder_and_a_fusion():
    with pytest.raises(ValueError, match="got neither"):
        CellEncoder()
    with pytest.raises(ValueError, match="'fusion'"):
        CellEncoder(GeneEncoder(6, 8), ImageEncoder("test_vit", 8))
