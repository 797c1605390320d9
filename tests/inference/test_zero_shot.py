import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.inference import ZeroShot, embed_data
from spatiagraph.models import ContextModel


@pytest.fixture(scope="module")
def slides():
    return [sg.make_tissue(200, num_genes=30, seed=n, slide_id=f"s{n}") for n in range(3)]


def test_a_model_sees_the_training_slides_alone_and_embeds_all(slides):
    asked, models = [], []

    def train(seen):
        asked.append([slide.slide_id for slide in seen])
        models.append(ContextModel.for_slides(seen, channels=8, image=None, seed=0))
        return models[-1]

    zero_shot = ZeroShot(slides, train)
    mask = np.repeat([True, False, True], 200)
    niche, cell = (zero_shot.level(level)(mask) for level in ("niche", "cell"))
    assert asked == [["s0", "s2"]]  # once, whatever is asked for
    expected = embed_data(models[0], models[0].recipe(slides[1]))
    np.testing.assert_allclose(niche[200:400], expected["niche"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cell[200:400], expected["cell"], rtol=1e-5, atol=1e-6)
    zero_shot.level("niche")(~mask)
    assert asked[1:] == [["s1"]]


def test_masks_that_are_no_whole_slides_are_refused(slides):
    zero_shot = ZeroShot(slides, lambda seen: pytest.fail("trained"))
    mask = np.repeat([True, False, True], 200)
    mask[0] = False
    with pytest.raises(ValueError, match="whole slides .* got 199 of 200 cells of 's0'"):
        zero_shot.embeddings(mask)
    with pytest.raises(ValueError, match="slides to train on, got none"):
        zero_shot.embeddings(np.zeros(600, dtype=bool))
    with pytest.raises(ValueError, match="a mask of 600 cells"):
        zero_shot.embeddings([0, 1])
