import pytest
import torch
from torch.testing import assert_close

from spatiagraph.losses import masked_image_loss
from spatiagraph.nn.patches import patchify

HIDDEN = torch.tensor([[True, False, True, True, False, False], [False] * 5 + [True]])


def crops_and_prediction(num_channels=3):
    """Two crops of 8 × 12 px: 2 × 3 patches of 4 px."""
    torch.manual_seed(0)
    image = torch.rand(2, num_channels, 8, 12, dtype=torch.float64)
    return image, torch.randn(2, 6, 16 * num_channels, dtype=torch.float64)


def test_the_loss_is_the_mean_over_pixels_of_hidden_patches():
    image, prediction = crops_and_prediction()
    error = (prediction - patchify(image, 4)).square()
    assert_close(masked_image_loss(prediction, image, HIDDEN), error[HIDDEN].mean())


def test_visible_patches_get_no_gradient():
    """SPATIA fact 22."""
    image, prediction = crops_and_prediction()
    masked_image_loss(prediction.requires_grad_(), image, HIDDEN).backward()
    assert_close(prediction.grad[~HIDDEN], torch.zeros(8, 48, dtype=torch.float64))
    assert (prediction.grad[HIDDEN] != 0).all()


@pytest.mark.parametrize("normalize", [False, True])
def test_a_perfect_prediction_costs_nothing(normalize):
    image, _ = crops_and_prediction()
    prediction = patchify(image, 4)
    if normalize:
        deviation = prediction - prediction.mean(-1, keepdim=True)
        prediction = deviation / prediction.std(-1, keepdim=True)
    loss = masked_image_loss(prediction, image, HIDDEN, normalize=normalize)
    assert_close(loss, torch.zeros_like(loss), atol=1e-9, rtol=0)


def test_normalised_patches_know_neither_brightness_nor_contrast():
    image, prediction = crops_and_prediction()
    loss = masked_image_loss(prediction, image, HIDDEN, normalize=True)
    other = masked_image_loss(prediction, 0.5 * image + 0.2, HIDDEN, normalize=True)
    assert_close(other, loss, atol=0, rtol=1e-3)  # up to the 1e-6 beside the variance
    plain = masked_image_loss(prediction, image, HIDDEN)
    assert (masked_image_loss(prediction, 0.5 * image + 0.2, HIDDEN) - plain).abs() > 0.01


def test_an_empty_background_patch_stays_finite_when_normalised():
    image, prediction = torch.zeros(2, 3, 8, 12), torch.zeros(2, 6, 48)
    assert masked_image_loss(prediction, image, HIDDEN, normalize=True) == 0


@pytest.mark.parametrize("normalize", [False, True])
def test_a_missing_image_may_hold_anything(normalize):
    image, prediction = crops_and_prediction()
    broken = image.clone()
    broken[1] = torch.nan
    present = HIDDEN & torch.tensor([[True], [False]])
    prediction.requires_grad_()
    loss = masked_image_loss(prediction, broken, present, normalize=normalize)
    loss.backward()
    assert_close(
        loss, masked_image_loss(prediction[:1], image[:1], HIDDEN[:1], normalize=normalize)
    )
    assert_close(prediction.grad[1], torch.zeros(6, 48, dtype=torch.float64))


def test_nothing_hidden_is_zero():
    image, prediction = crops_and_prediction()
    assert masked_image_loss(prediction, image, torch.zeros_like(HIDDEN)) == 0


@pytest.mark.parametrize("normalize", [False, True])
def test_gradients_agree_with_finite_differences(normalize):
    image, prediction = crops_and_prediction(num_channels=1)
    assert torch.autograd.gradcheck(
        lambda p: masked_image_loss(p, image, HIDDEN, normalize=normalize),
        [prediction.requires_grad_()],
    )


def test_half_precision_is_computed_in_single():
    image, prediction = (t.bfloat16() for t in crops_and_prediction())
    loss = masked_image_loss(prediction, image, HIDDEN)
    assert_close(loss, masked_image_loss(prediction.float(), image.float(), HIDDEN))


def test_shapes_that_disagree_are_refused():
    image, prediction = crops_and_prediction()
    with pytest.raises(ValueError, match=r"crops of \[2, 3, 8, 12\], got \[2, 6, 16\]"):
        masked_image_loss(prediction[..., :16], image, HIDDEN)  # 2 px of 3 channels are 12
    with pytest.raises(ValueError, match=r"crops of \[2, 3, 8, 12\], got \[2, 7, 48\]"):
        masked_image_loss(torch.zeros(2, 7, 48), image, HIDDEN)
    with pytest.raises(ValueError, match=r"'mask' \[2, 6\], one entry per patch, got \[6\]"):
        masked_image_loss(prediction, image, HIDDEN[0])
