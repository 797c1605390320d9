import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from spatiagraph.nn import ImageEncoder


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_encoder_pools_or_returns_tokens_of_any_timm_model(name, channels):
    crops = torch.rand(2, channels, 160, 160)
    pooled = ImageEncoder(name, 8, in_channels=channels).eval()(crops)
    tokens = ImageEncoder(name, 8, in_channels=channels, tokens=True).eval()(crops)
    assert pooled.shape == (2, 8)
    assert tokens.dim() == 3
    assert tokens.shape[::2] == (2, 8)


def test_image_encoder_gives_the_same_bits_twice():
    """SPATIA fact 10."""
    encoder, crops = ImageEncoder("test_vit", 8).eval(), torch.rand(2, 3, 160, 160)
    assert_close(encoder(crops), encoder(crops), rtol=0, atol=0)


def test_image_encoder_starts_from_a_local_weight_file(tmp_path):
    """SPATIA fact 14."""
    source = ImageEncoder("test_vit", 8)
    save_file(source.backbone.state_dict(), tmp_path / "vit.safetensors")
    loaded = ImageEncoder("test_vit", 8, checkpoint=str(tmp_path / "vit.safetensors"))
    for name, value in loaded.backbone.state_dict().items():
        assert_close(value, source.backbone.state_dict()[name])
    assert loaded.config_args()["checkpoint"] is None


def test_image_encoder_names_near_models():
    with pytest.raises(ValueError, match="near it: .*resnet"):
        ImageEncoder("resnet_17", 8)
    with pytest.raises(ValueError, match="found none at 'nowhere.pth'"):
        ImageEncoder("test_vit", 8, checkpoint="nowhere.pth")


def test_image_encoder_rejects_grey_crops_where_it_reads_colour():
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\], got \[2, 1, 160, 160\]"):
        ImageEncoder("test_vit", 8)(torch.rand(2, 1, 160, 160))


def test_image_encoder_sums_colour_weights_for_grey_crops(tmp_path):
    """SPATIA fact 14: reading grey crops equals repeating them three times."""
    colour = ImageEncoder("test_vit", 8, tokens=True).eval()
    colour.mean.fill_(0.5), colour.std.fill_(0.25)
    save_file(colour.backbone.state_dict(), tmp_path / "vit.safetensors")
    path = str(tmp_path / "vit.safetensors")
    grey = ImageEncoder("test_vit", 8, tokens=True, in_channels=1, checkpoint=path).eval()
    grey.project.load_state_dict(colour.project.state_dict())
    grey.mean.fill_(0.5), grey.std.fill_(0.25)
    crops = torch.rand(2, 1, 160, 160)
    assert_close(grey(crops), colour(crops.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_image_encoder_refuses_a_weight_file_that_leaves_part_of_it_random(tmp_path):
    """SPATIA fact 14."""
    state = ImageEncoder("test_vit", 8).backbone.state_dict()
    part = {name: value for name, value in state.items() if not name.startswith("blocks.0.")}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"missing or in another shape \(first: \['blocks.0."):
        ImageEncoder("test_vit", 8, checkpoint=str(tmp_path / "part.safetensors"))
