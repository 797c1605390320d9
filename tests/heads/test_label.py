"""Label head: linear classifiers that may start from logistic regression."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.testing import assert_close

from spatiagraph.heads import LabelHead


@pytest.fixture
def cells():
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(120) % 3
    z = 5 + torch.randn(120, 4, generator=generator) + 3 * torch.eye(4)[label]
    binary = (label == 1).long()
    return z, torch.stack([label, binary], 1)


def test_it_starts_as_logistic_regression(cells):
    z, labels = cells
    head = LabelHead(4, [3, 2])
    head.initialize(z, labels)
    reference = LogisticRegression(max_iter=500)
    h = StandardScaler().fit_transform(z.numpy())
    expected = torch.from_numpy(reference.fit(h, labels[:, 0].numpy()).predict_proba(h)).float()
    logits, binary = head(z)
    assert_close(logits.softmax(1), expected, rtol=1e-2, atol=1e-2)
    assert (logits.argmax(1) == labels[:, 0]).float().mean() > 0.85
    assert (binary.argmax(1) == labels[:, 1]).float().mean() > 0.85


def test_a_channel_that_never_varied_has_no_unit(cells):
    z, labels = cells
    z[:, 2] = 0.5
    head = LabelHead(4, [3, 2])
    head.initialize(z, labels)
    assert (head.mean[2], head.std[2]) == (0.5, 1.0)


def test_unknown_cells_and_absent_classes_are_left_out(cells):
    z, labels = cells
    head = LabelHead(4, [5, 2])
    labels = labels.clone()
    labels[:40] = -1
    head.initialize(z, labels)
    (logits, _) = head(z)
    assert logits.argmax(1).max() <= 2
    assert_close(logits[:, 3:], torch.full((120, 2), -5.0))
    with pytest.raises(ValueError, match=r"two or more classes of label 0, got \[\]"):
        head.initialize(z, torch.full_like(labels, -1))
