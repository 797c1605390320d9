"""What SToFM learns on a synthetic slide (SToFM fact A16)."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

import spatiagraph as sg
from spatiagraph.losses import masked_cells_loss
from spatiagraph.models import SToFM, SubSlices
from spatiagraph.tasks import SToFMPretraining, Streams

NUM_DOMAINS = 5


def domains(model, slide, shuffled):
    """The slide prepared with vectors that are the mean of their domain and noise."""
    generator = torch.Generator().manual_seed(0)
    data, num_cells = model.prepare(slide, learn=True), slide.num_cells
    centre = data.place[torch.randperm(num_cells, generator=generator)[:NUM_DOMAINS]]
    mean = normalize(torch.randn(NUM_DOMAINS, 64, generator=generator), dim=1)
    noise = 0.05 * torch.randn(num_cells, 64, generator=generator)
    z = normalize(mean[torch.cdist(data.place, centre).argmin(1)] + noise, dim=1)
    if shuffled:
        z = z[torch.randperm(num_cells, generator=generator)]
    data.z = z
    data.own, data.virtual_x, data.virtual_pos, _ = model.virtual(z, data.place)
    data.virtual_size = torch.bincount(data.own)
    held_out = torch.rand(num_cells, generator=generator) < 0.25
    others = copy.copy(data)
    data.core, others.core = ~held_out, held_out
    return data, others


def learned(rule, *, lr, num_cells, num_steps, shuffled=False):
    """Errors of held-out cells and distances over those of what knows means alone."""
    slide = sg.make_tissue(num_cells, num_genes=20, image=None, seed=0)
    model = SToFM.for_slides([slide], slices=rule)
    train, test = (list(model.batches([d], 1)) for d in domains(model, slide, shuffled))
    task = SToFMPretraining(model)
    optimizer = torch.optim.AdamW(task.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=num_steps)
    for step in range(num_steps):
        loss = task.loss(train[step % len(train)], torch.Generator().manual_seed(step)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    mean = torch.cat([b.z[b.core] for b in train]).mean(0)
    found = []
    with torch.no_grad():
        for batch in test:
            streams = Streams(torch.Generator().manual_seed(1000), torch.device("cpu"))
            view = task.view(batch, streams)
            rows = view.cells.replaced
            cells = masked_cells_loss(model.heads.cell(view.states.h[rows]), view.z[rows])
            plain = masked_cells_loss(mean.expand(int(rows.sum()), -1), view.z[rows])
            distance = model.heads.distance(view.states.at).view(2, -1).mean(0)
            error = (distance * view.unit - view.distance).square().mean()
            spread = (view.distance.mean() - view.distance).square().mean()
            found.append(torch.stack([cells, plain, error, spread]))
    cells, plain, error, spread = torch.stack(found).mean(0).tolist()
    return cells / plain, (error / spread) ** 0.5


@pytest.mark.slow
def test_hidden_cells_and_lost_distances_are_recovered():
    """SToFM fact A16: 0.18 and 0.55 when this was written, where all distances are known."""
    rule = SubSlices(max_cells=1000, dense=True)
    cells, distances = learned(rule, lr=3e-3, num_cells=2000, num_steps=300)
    assert cells < 0.5
    assert distances < 0.7


def test_hidden_cells_are_recovered_from_where_they_lie():
    """SToFM fact A16: what positions say is lost when cells are shuffled among them.

    0.25 when this was written. Distances are not recovered where the nearest 49 alone are known:
    0.97 of what their mean knows.
    """
    rule, options = SubSlices(max_cells=125), {"lr": 2e-3, "num_cells": 1000, "num_steps": 200}
    cells, _ = learned(rule, **options)
    shuffled, _ = learned(rule, **options, shuffled=True)
    assert cells < 0.5
    assert shuffled > 0.9
