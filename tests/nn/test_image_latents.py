"""Autoencoders of images: their scale, and published ones from a folder."""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from spatiagraph.nn import ImageLatents


def images(num=6, channels=1):
    return 2 * torch.rand(num, channels, 16, 16, generator=torch.Generator().manual_seed(0)) - 1


@pytest.fixture
def published(tmp_path):
    """Folder of an autoencoder as diffusers writes it, and the autoencoder."""
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
    }
    net = AutoencoderKL(
        3, 3, block_out_channels=(8, 8, 16), norm_num_groups=8, scaling_factor=0.25, **blocks
    )
    net.save_pretrained(tmp_path)
    return tmp_path, net


def test_latents_are_smaller_and_standardised():
    torch.manual_seed(0)
    model = ImageLatents(1, 3, channels=(8, 8, 16))
    model.initialize(images())
    z = model.encode(images())
    assert model.stride == 4
    assert z.shape == (6, 3, 4, 4)
    assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(z.transpose(0, 1).flatten(1).std(1), torch.ones(3))
    assert model.decode(z).shape == (6, 1, 16, 16)


def test_a_published_one_encodes_and_decodes_as_diffusers_does(published):
    folder, net = published
    model = ImageLatents.from_diffusers(folder)
    x = images(channels=3)
    with torch.no_grad():
        mode = net.encode(x).latent_dist.mode()
        assert_close(model.encode(x), 0.25 * mode)
        assert_close(model.decode(0.25 * mode), net.decode(mode).sample)


def test_it_is_saved_and_read_with_its_scale(tmp_path):
    torch.manual_seed(0)
    model = ImageLatents(1, channels=(8, 8))
    model.initialize(images())
    model.save_pretrained(tmp_path)
    again = ImageLatents.from_pretrained(tmp_path)
    assert torch.equal(again.encode(images()), model.encode(images()))


def test_folders_that_hold_something_else_are_refused(published):
    folder, net = published
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "diffusion_pytorch_model.safetensors"

    def write(**changed):
        (folder / "config.json").write_text(json.dumps(config | changed))

    write(_class_name="VQModel")
    with pytest.raises(ValueError, match="AutoencoderKL"):
        ImageLatents.from_diffusers(folder)
    write(down_block_types=["AttnDownEncoderBlock2D"] * 3)
    with pytest.raises(ValueError, match="down_block_types"):
        ImageLatents.from_diffusers(folder)
    write(norm_num_groups=4)  # weights of any number of groups have one shape
    with pytest.raises(ValueError, match="norm_num_groups"):
        ImageLatents.from_diffusers(folder)
    write(latent_channels=8)
    with pytest.raises(ValueError, match="weights of the network"):
        ImageLatents.from_diffusers(folder)
    write()
    save_file({"one": load_file(weights)["quant_conv.bias"]}, weights)
    with pytest.raises(ValueError, match="weights of the network"):
        ImageLatents.from_diffusers(folder)
    weights.unlink()
    torch.save(net.state_dict(), folder / "diffusion_pytorch_model.bin")  # would run code
    with pytest.raises(FileNotFoundError, match="safetensors"):
        ImageLatents.from_diffusers(folder)


def test_images_that_do_not_fit_are_refused():
    model = ImageLatents(1, channels=(8, 8))
    with pytest.raises(ValueError, match=r"\[B, 1, H, W\]"):
        model.encode(images(channels=3))
    with pytest.raises(ValueError, match="divisible by 2"):
        model.encode(images()[..., :15])
    with pytest.raises(ValueError, match="one resolution"):
        ImageLatents(1, channels=())
