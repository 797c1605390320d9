import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from spatiagraph._config import from_config, to_config
from spatiagraph.nn.masked_image import MaskedImageDecoder, MaskedImageEncoder
from spatiagraph.nn.patches import patchify

NAME = "vit_tiny_patch16_224"
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def encoder(**options) -> MaskedImageEncoder:
    torch.manual_seed(0)
    return MaskedImageEncoder(NAME, **{**TINY, "in_channels": 1, **options})


def decoder(made: MaskedImageEncoder) -> MaskedImageDecoder:
    return MaskedImageDecoder.matching(made, hidden_channels=8, num_layers=1, heads=2)


def crops(num_cells: int = 3, channels: int = 1) -> torch.Tensor:
    return torch.rand(num_cells, channels, 32, 32, generator=torch.Generator().manual_seed(1))


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


@pytest.mark.parametrize(
    ("name", "ratio", "num_tokens"),
    [
        ("vit_base_patch16_224", 0.0, 197),
        ("vit_base_patch16_224", 0.75, 50),
        ("vit_base_patch32_clip_224", 0.0, 50),
        ("vit_base_patch14_reg4_dinov2", 0.0, 1374),
    ],
)
def test_base_vit_has_the_published_number_of_tokens(name, ratio, num_tokens):
    """SPATIA fact 9."""
    with torch.device("meta"):  # shapes alone: nothing is computed
        base = MaskedImageEncoder(name)
        size = base.grid[0] * base.patch_size
        out = base(torch.rand(2, 3, size, size), mask_ratio=ratio)
    assert out.tokens.shape == (2, num_tokens, 768)


@pytest.mark.parametrize("channels", [1, 3])
def test_training_hides_patches_and_inference_none(channels):
    """SPATIA fact 9: one class token and a quarter of 16 patches, or all of them."""
    model, image = encoder(in_channels=channels), crops(channels=channels)
    trained, used = model(image), model.eval()(image)
    assert trained.tokens.shape == (3, 1 + 4, 16)
    assert used.tokens.shape == (3, 1 + 16, 16)
    assert trained.hidden.sum(1).tolist() == [12, 12, 12]
    assert not used.hidden.any()


def test_inference_gives_the_same_bits_twice_and_the_tokens_of_timm():
    """SPATIA fact 10."""
    model, image = encoder().eval(), crops()
    assert_close(model(image).tokens, model(image).tokens, rtol=0, atol=0)
    plain = model.backbone.forward_features(model.normalize(image))
    assert_close(model(image).tokens, plain, rtol=0, atol=0)


def test_choice_of_patches_follows_the_generator_alone():
    model, image = encoder(), crops()
    first, again, other = (model(image, generator=seed(s)) for s in (0, 0, 1))
    assert_close(first.tokens, again.tokens, rtol=0, atol=0)
    assert not torch.equal(first.visible, other.visible)
    assert len(first.visible.unique(dim=0)) > 1  # every cell has its own


def test_every_patch_is_hidden_equally_often():
    hidden = encoder()(crops(1).expand(2000, -1, -1, -1), generator=seed(0)).hidden
    assert_close(hidden.float().mean(0), torch.full((16,), 0.75), rtol=0, atol=0.04)


def test_hidden_pixels_are_not_seen():
    model, image = encoder(), crops()
    first = model(image, generator=seed(0))
    hidden = first.hidden.view(-1, 1, *model.grid).repeat_interleave(8, 2).repeat_interleave(8, 3)
    again = model(image + hidden, generator=seed(0))
    assert_close(again.tokens, first.tokens, rtol=0, atol=0)
    seen = model(image + ~hidden, generator=seed(0)).tokens
    assert not torch.allclose(seen, first.tokens)


def test_visible_patches_are_those_that_are_not_hidden():
    out = encoder()(crops())
    for visible, hidden in zip(out.visible, out.hidden, strict=True):
        assert_close(visible, (~hidden).nonzero().flatten())


def test_encoder_starts_from_a_local_weight_file(tmp_path):
    """SPATIA fact 14."""
    source = encoder()
    save_file(source.backbone.state_dict(), tmp_path / "vit.safetensors")
    torch.manual_seed(9)
    path = str(tmp_path / "vit.safetensors")
    loaded = MaskedImageEncoder(NAME, **TINY, in_channels=1, checkpoint=path)
    for name, value in loaded.backbone.state_dict().items():
        assert_close(value, source.backbone.state_dict()[name], rtol=0, atol=0)


def test_window_token_tells_crops_of_one_look_apart():
    model, image = encoder(read_window=True).eval(), crops(1).expand(2, -1, -1, -1)
    out = model(image, torch.tensor([10.0, 40.0])).tokens
    assert out.shape == (2, 2 + 16, 16)
    assert not torch.allclose(out[0, 0], out[1, 0])
    with pytest.raises(ValueError, match="'window_um' of each of 2 crops, got None"):
        model(image)


@pytest.mark.parametrize("ratio", [0.0, 0.75])
@pytest.mark.parametrize("read_window", [False, True])
def test_decoder_paints_every_patch(ratio, read_window):
    model = encoder(read_window=read_window)
    out = model(crops(), torch.full((3,), 20.0), mask_ratio=ratio)
    painted = decoder(model)(out.tokens, out.visible)
    assert painted.shape == patchify(crops(), 8).shape


def test_decoder_reads_where_each_token_comes_from():
    model = encoder()
    out, paint = model(crops()), decoder(model).eval()
    order = torch.tensor([2, 0, 3, 1])
    shuffled = torch.cat([out.tokens[:, :1], out.tokens[:, 1:][:, order]], 1)
    painted = paint(out.tokens, out.visible)
    assert_close(paint(shuffled, out.visible[:, order]), painted)
    assert not torch.allclose(paint(shuffled, out.visible), painted, atol=1e-4)


def test_masked_autoencoder_learns_to_paint_hidden_patches():
    model = encoder(mask_ratio=0.5)
    paint = decoder(model)
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    image = torch.cat([ramp, ramp.mT, 1 - ramp, 1 - ramp.mT]).repeat(4, 1, 1, 1)
    target = patchify(image, 8)
    parameters = [*model.parameters(), *paint.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    generator = seed(0)
    for _ in range(200):
        out = model(image, generator=generator)
        loss = (paint(out.tokens, out.visible) - target)[out.hidden].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3 * target.var()  # a constant grey gets the variance


def test_gradients_reach_every_parameter():
    model = encoder(read_window=True)
    paint = decoder(model)
    out = model(crops(), torch.tensor([10.0, 20.0, 40.0]))
    paint(out.tokens, out.visible).square().sum().backward()
    parameters = [*model.named_parameters(), *paint.named_parameters()]
    assert [n for n, p in parameters if p.grad is None or not p.grad.any()] == []


def test_both_are_rebuilt_from_configuration_and_weights():
    model = encoder(read_window=True)
    for module in (model, decoder(model)):
        again = from_config(to_config(module))
        again.load_state_dict(module.state_dict())
        assert str(again) == str(module)
    out = model.eval()(crops(), torch.full((3,), 20.0))
    first, second = (m(out.tokens, out.visible) for m in (module, again))
    assert_close(first, second, rtol=0, atol=0)


def test_encoder_says_what_does_not_fit():
    with pytest.raises(ValueError, match="a ViT with a class token, .* got 'test_resnet'"):
        MaskedImageEncoder("test_resnet")
    with pytest.raises(ValueError, match="a ViT with a class token"):
        encoder(class_token=False, global_pool="avg")
    with pytest.raises(ValueError, match=r"32 × 32 px, got \[2, 1, 16, 16\]"):
        encoder()(torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r"\[N, 1, H, W\], got \[2, 3, 32, 32\]"):
        encoder()(torch.rand(2, 3, 32, 32))
    with pytest.raises(ValueError, match="'mask_ratio' from 0 to below 1, got 1"):
        encoder(mask_ratio=1.0)


def test_decoder_says_what_does_not_fit():
    model = encoder()
    out = model(crops())
    with pytest.raises(ValueError, match=r"1 \+ 4 tokens, got 4"):
        decoder(model)(out.tokens[:, 1:], out.visible)
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        MaskedImageDecoder(8, (2, 2), 8, hidden_channels=6)
