from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from spatiagraph.data.recipe import Crop
from spatiagraph.flow import Sampling
from spatiagraph.models import CellImagePipeline, ImageGenerator
from spatiagraph.models.generator import TINY

NET = replace(TINY, channels=8, condition_channels=8, head_channels=8)
STATES = [("a", "b", "forth"), ("b", "a", "back")]


def pipeline(image_channels: int = 1, transitions=()) -> CellImagePipeline:
    torch.manual_seed(0)
    parts = NET.unet(image_channels), NET.conditioner([3], num_transitions=len(transitions))
    known = {"context": {"X": 3}, "transitions": transitions}
    model = ImageGenerator(*parts, crop=Crop(size_px=16), **known)
    for parameter in model.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    result = CellImagePipeline(model)
    result.set_progress_bar_config(disable=True)
    return result


def pictures(mode: str = "L", size: int = 16) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shape = (size, size) if mode == "L" else (size, size, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode) for _ in range(2)]


CONTEXT = torch.arange(6.0).view(2, 3)


def test_pictures_and_tensors_lead_to_the_same_images():
    run = pipeline()
    array = np.stack([np.asarray(picture) for picture in pictures()]).astype(np.float32) / 255
    first = run(pictures(), context=CONTEXT, sampling=Sampling(2)).images
    second = run(torch.from_numpy(array[:, None]), context=CONTEXT, sampling=Sampling(2)).images
    assert_close(first, second)


def test_results_come_as_tensor_array_or_pictures():
    run = pipeline(3)

    def made(kind: str):
        given = {"sampling": Sampling(1), "output_type": kind}
        return run(pictures("RGB"), context=CONTEXT, **given).images

    assert made("pt").shape == (2, 3, 16, 16)
    assert made("np").shape == (2, 16, 16, 3)
    assert [(p.size, p.mode) for p in made("pil")] == [((16, 16), "RGB")] * 2
    with pytest.raises(ValueError, match="pt, np or pil"):
        made("jpg")
    plain = run(pictures("RGB"), context=CONTEXT, sampling=Sampling(1), return_dict=False)
    assert torch.equal(plain[0], made("pt"))


def test_each_cell_may_have_a_transition_of_its_own():
    run = pipeline(transitions=STATES)
    given = {"context": CONTEXT, "sampling": Sampling(2)}
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    mixed = run(image, transition=["forth", "back"], **given).images
    assert_close(mixed[:1], run(image, transition="forth", **given).images[:1])
    assert_close(mixed[1:], run(image, transition="back", **given).images[1:])
    with pytest.raises(ValueError, match="each of 2 cells, got 3"):
        run(image, transition=["forth", "back", "forth"], **given)
    with pytest.raises(ValueError, match="got 'sideways'"):
        run(image, transition="sideways", **given)


def test_context_comes_in_any_precision_as_array_or_tensor():
    run, image = pipeline(), torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = run(image, context=CONTEXT, sampling=Sampling(1)).images
    for context in (CONTEXT.numpy().astype(np.float64), CONTEXT.bfloat16(), CONTEXT.tolist()):
        assert torch.equal(run(image, context=context, sampling=Sampling(1)).images, expected)


def test_inputs_of_different_cells_are_refused():
    with pytest.raises(ValueError, match=r"as many cells, got those of \[1, 2\]"):
        pipeline(transitions=STATES)(pictures()[:1], context=CONTEXT, transition="forth")


def test_a_saved_pipeline_makes_the_same_images(tmp_path):
    run = pipeline()
    run.save_pretrained(tmp_path)
    again = CellImagePipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    first, second = (r(pictures(), context=CONTEXT).images for r in (run, again))
    assert torch.equal(first, second)


def test_its_progress_counts_steps(capsys):
    run = pipeline()
    run.set_progress_bar_config(disable=False)
    run(pictures(), context=CONTEXT, sampling=Sampling(3))
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (pictures() + pictures(size=20), "one size and kind"),
        (pictures() + pictures("RGB"), "one size and kind"),
        (pictures("RGB"), r"images \[2, 1, 16, 16\].*got \[2, 3, 16, 16\]"),
        (pictures(size=20), r"got \[2, 1, 20, 20\]"),
        (None, "images of the control cells"),
    ],
)
def test_images_that_do_not_fit_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        pipeline()(image, context=CONTEXT)
