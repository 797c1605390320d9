"""Tokens of regions before the layers among their niches."""

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import make_tissue
from spatiagraph.data.loader import TileLoader
from spatiagraph.data.recipe import Crop
from spatiagraph.models import Spatia
from spatiagraph.nn import GraphTransformer, Level
from spatiagraph.nn.cell_graph import LevelGraph
from spatiagraph.nn.level import with_tokens

OWN = torch.tensor([0, 0, 1, -1, 1, 1])  # niches of two regions; one in none
ABOVE = LevelGraph(OWN, None, torch.zeros(2, 2))
POS = torch.zeros(6, 2)


def level(**options):
    torch.manual_seed(0)
    return Level(8, conv=GraphTransformer(8, 1, 2), **options).eval()


def test_tokens_see_their_members_and_are_seen_by_them():
    edges = with_tokens(OWN, 2, 2)
    source, target = edges
    region = torch.cat([OWN, torch.tensor([0, 1, 0, 1])])
    found = set(zip(source.tolist(), target.tolist(), strict=True))
    known = {(i, j) for i in range(10) for j in range(10) if region[i] == region[j] >= 0}
    assert found == known | {(3, 3)}
    assert edges.size(1) == len(found)
    assert (target.diff() >= 0).all()
    edges.validate()


def test_a_token_that_nothing_is_written_on_is_as_one_more_silent_niche():
    """The same as a graph in which the token is a member."""
    layer = level(region_token=True)
    h = torch.randn(6, 8)
    out = layer.see_each_other(h, POS, ABOVE)
    assert out.shape == (6, 8)
    own = torch.cat([OWN, torch.tensor([0, 1])])
    whole = torch.cat([h, layer.region.expand(2, -1)])
    plain = level()
    plain.load_state_dict(layer.state_dict(), strict=False)
    above = LevelGraph(own, None, torch.zeros(2, 2))
    assert_close(out, plain.see_each_other(whole, torch.zeros(8, 2), above)[:6])


def test_order_of_niches_does_not_matter_and_regions_do_not_hear_each_other():
    layer = level(region_token=True, region_channels=4)
    h, tokens = torch.randn(6, 8, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    out = layer.see_each_other(h, POS, ABOVE, tokens)
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    moved = LevelGraph(OWN[order], None, ABOVE.pos)
    assert_close(layer.see_each_other(h[order], POS, moved, tokens), out[order])
    out[:2].sum().backward()
    assert (h.grad[:2] != 0).all()
    assert (h.grad[2:] == 0).all()
    assert (tokens.grad[0] != 0).all()
    assert (tokens.grad[1] == 0).all()
    assert (layer.region.grad != 0).any()
    assert (layer.region_image.weight.grad != 0).any()


def test_a_region_without_image_has_its_learned_token_alone():
    both, one = level(region_token=True, region_channels=4), level(region_token=True)
    one.load_state_dict(both.state_dict(), strict=False)
    h = torch.randn(6, 8)
    assert_close(both.see_each_other(h, POS, ABOVE, None), one.see_each_other(h, POS, ABOVE))
    changed = both.see_each_other(h, POS, ABOVE, torch.randn(2, 3, 4))
    assert not torch.allclose(changed[0], one.see_each_other(h, POS, ABOVE)[0])
    with pytest.raises(ValueError, match="Expected 'conv'"):
        Level(8, region_token=True)


def test_spatia_reads_the_image_of_a_region_into_its_niches(tmp_path):
    slide = make_tissue(300, num_genes=20, image="dapi", seed=0)
    recipe = Spatia.default_recipe([slide])
    name = recipe.level_names[1]
    crops = (*recipe.crops, Crop(217.6, 32, of=name))
    recipe = Spatia.default_recipe([slide], crops=crops)
    model = Spatia.for_slides([slide], "tiny", recipe=recipe, region_tokens=True).eval()
    (tile,) = TileLoader([model.recipe(slide)], slide.num_cells, 0)
    niche = model(*model.inputs(tile)).levels[0].h
    niche.sum().backward()
    inside = model.context_encoder.levels[0]
    assert (inside.region.grad != 0).any()
    assert (inside.region_image.weight.grad != 0).any()
    dark = tile.clone()
    dark[f"{name}_image"] = torch.zeros_like(tile[f"{name}_image"])
    other = model(*model.inputs(dark))
    assert not torch.allclose(other.levels[0].h, niche)
    plain = model(*model.inputs(tile))
    assert_close(other.cell, plain.cell)  # gates of niches and regions start closed
    model.save_pretrained(tmp_path)
    again = Spatia.from_pretrained(tmp_path).eval()
    assert_close(again(*again.inputs(tile)).levels[0].h, niche)
