"""Pre-training of SPATIA: each objective counts by its weight and teaches what it says."""

from dataclasses import asdict, replace

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import make_tissue
from spatiagraph.data.loader import TileLoader
from spatiagraph.models import Spatia
from spatiagraph.models.spatia import TINY
from spatiagraph.tasks import Annotation, Corruption, SpatiaPretraining, SpatiaWeights

SLIDE = make_tissue(200, num_genes=30, image="dapi", seed=0)
SMALL = replace(TINY, channels=16, gene_channels=16, gene_layers=1, num_tokens=20)
HIDING = Corruption(hidden_ratio=0.4)
ALL = SpatiaWeights(label_adversary=0.1, source_adversary=0.1)
NAMES = list(asdict(ALL))


def task(weights=ALL, labels=("cell_type", "region"), slide=SLIDE, **arguments):
    torch.manual_seed(0)
    model = Spatia.for_slides([slide], SMALL, labels=list(labels), **arguments)
    return SpatiaPretraining(model, weights, corruption=HIDING, num_sources=2)


def batch_of(task, slide=SLIDE):
    (tile,) = TileLoader([task.model.recipe(slide)], slide.num_cells, task.model.num_hops)
    return tile


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", NAMES)
def test_a_switched_on_loss_adds_its_weight_times_its_value(name):
    """SPATIA fact 23."""
    on = task()
    batch = batch_of(on)
    with_it = on.loss(batch, generator())
    assert set(with_it.parts) == set(NAMES)
    objective = next(o for o in on.objectives if o.name == name)
    objective.weight = 0.0
    without = on.loss(batch, generator())
    if name in ("masked_cells", "masked_niches"):  # then nothing is hidden from the others either
        assert name not in without.parts
        total = sum(getattr(ALL, k) * v for k, v in with_it.parts.items())
        assert_close(with_it.loss, total)
        return
    weight = getattr(ALL, name)
    assert with_it.parts[name] > 0
    assert_close(with_it.loss - without.loss, weight * with_it.parts[name], rtol=1e-3, atol=1e-4)
    objective.weight = 3 * weight
    assert_close(
        on.loss(batch, generator()).loss - with_it.loss,
        2 * weight * with_it.parts[name],
        rtol=1e-3,
        atol=1e-4,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_alone_has_a_gradient_and_learns(name):
    torch.manual_seed(0)
    only = task(SpatiaWeights(**{k: float(k == name) for k in NAMES}))
    batch = batch_of(only)
    first = only.loss(batch, generator())
    assert list(first.parts) == [name]
    reversed_ones = ("label_adversary", "source_adversary")
    optimizer = torch.optim.Adam(only.parameters(), 3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        loss = only.loss(batch, generator()).loss
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    if name not in reversed_ones:
        assert loss < first.loss


def test_the_same_generator_gives_the_same_loss():
    once = task()
    batch = batch_of(once)
    assert_close(once.loss(batch, generator()).loss, once.loss(batch, generator()).loss)
    other = once.loss(batch, torch.Generator().manual_seed(1)).loss
    assert not torch.isclose(other, once.loss(batch, generator()).loss)


def test_unknown_labels_teach_nothing():
    """SPATIA fact 22."""
    weights = SpatiaWeights(**{k: float(k == "classification") for k in NAMES})
    unlabelled = task(weights)
    batch = batch_of(unlabelled)
    batch.labels = torch.full_like(batch.labels, -1)
    out = unlabelled.loss(batch, generator())
    assert out.loss == 0
    out.loss.backward()
    assert all(
        p.grad is None or (p.grad == 0).all()
        for p in unlabelled.model.heads.classifiers.parameters()
    )


def test_what_is_not_there_is_left_out():
    genes = make_tissue(150, num_genes=30, image=None, seed=0)
    parts = set(_parts(task(SpatiaWeights(), labels=(), slide=genes), genes))
    left_out = {"masked_image", "cross_modal", "classification", "diversity"}
    assert parts == set(NAMES) - left_out - {"label_adversary", "source_adversary"}
    images = task(SpatiaWeights(), labels=(), genes=False)
    assert set(_parts(images, SLIDE)) == {
        "masked_image",
        "expression",
        "niche_profile",
        "masked_cells",
        "masked_niches",
    }


def _parts(task, slide):
    return task.loss(batch_of(task, slide), generator()).parts


def test_a_cached_batch_trains_context_alone():
    cached = task(SpatiaWeights())
    batch = batch_of(cached)
    batch.z = cached.model.encode(cached.model.cells(batch)).detach()
    del batch.image
    out = cached.loss(batch, generator())
    assert set(out.parts) == {"expression", "niche_profile", "masked_cells", "masked_niches"}
    out.loss.backward()
    assert all(p.grad is None for p in cached.model.cell_encoder.parameters())


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="0 or more, got less for denoise"):
        SpatiaWeights(denoise=-1.0)
    with pytest.raises(ValueError, match="'thin_rate' from 0 to below 1, got 1.0"):
        Corruption(thin_rate=1.0)
    with pytest.raises(ValueError, match="num_sources of 2 or more, got 0"):
        SpatiaPretraining(task().model, ALL)
    with pytest.raises(ValueError, match="labels with genes to hide"):
        SpatiaPretraining(task(SpatiaWeights(), labels=()).model, ALL, num_sources=2)
    with pytest.raises(ValueError, match="recipe reads labels"):
        Annotation(task(SpatiaWeights(), labels=()).model)


def test_annotation_learns_the_labels_it_is_given():
    model = task().model
    annotation = Annotation(model)
    batch = batch_of(annotation)
    optimizer = torch.optim.Adam(annotation.parameters(), 5e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        out = annotation.loss(batch)
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
    assert set(out.parts) == {"cell_type", "region"}
    assert losses[-1] < 0.7 * losses[0]
