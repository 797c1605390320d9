import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn import Condition, TransitionConditioner

ALL = {
    "context_channels": (3, 2),
    "num_genes": 4,
    "num_transitions": 3,
    "num_delta_genes": 4,
    "num_delta_morphology": 2,
}


def known(num: int = 5) -> Condition:
    generator = torch.Generator().manual_seed(0)
    return Condition(
        torch.randn(num, 5, generator=generator) * 10 + 3,
        torch.rand(num, 4, generator=generator),
        torch.arange(num) % 3,
    )


def conditioner(**sources) -> TransitionConditioner:
    torch.manual_seed(0)
    return TransitionConditioner(channels=8, **sources).eval()


@pytest.mark.parametrize(
    ("sources", "given", "num_tokens"),
    [
        (ALL, known(), 6),
        ({"context_channels": (5,)}, known()._replace(genes=None, transition=None), 1),
        ({"num_genes": 4}, known()._replace(context=None, transition=None), 1),
        ({"num_transitions": 3}, Condition(transition=known().transition), 1),
        (
            {"context_channels": (3, 2), "num_transitions": 3, "num_delta_morphology": 2},
            known()._replace(genes=None),
            4,
        ),
    ],
)
def test_any_subset_of_sources_conditions(sources, given, num_tokens):
    net = conditioner(**sources)
    assert net(given).shape == (5, 8)
    assert net(given, tokens=True).shape == (5, num_tokens, 8)


def test_embeddings_enter_on_one_scale():
    net, given = conditioner(**ALL), known()
    net.initialize(given)
    scaled = given._replace(context=given.context * 7 - 2)
    other = conditioner(**ALL)
    other.initialize(scaled)
    assert_close(other(scaled), net(given))


def test_what_never_varied_in_training_does_not_drown_the_rest():
    net, given = conditioner(**ALL), known()
    given.genes[:, 1] = 0  # a gene that no training cell expresses
    net.initialize(given)
    assert net.std[6] == 1  # in units of nothing, another cell that does would be all there is


def test_genes_that_were_not_measured_tell_nothing():
    net, given = conditioner(**ALL), known()
    given.genes[:2, 1] = torch.nan  # on one slide
    given.genes[:, 3] = torch.nan  # nowhere
    net.initialize(given)
    assert_close(net.mean[6], given.genes[2:, 1].mean())
    average = given._replace(genes=given.genes.clone())
    average.genes[:2, 1] = net.mean[6]
    average.genes[:, 3] = 0
    assert_close(net(given), net(average))
    missing = given._replace(context=given.context * torch.nan)
    assert net(missing).isnan().all()  # an embedding must be known


def test_a_transition_brings_its_own_signature():
    net, given = conditioner(**ALL), known(3)
    net.initialize(given)
    before = net(given)
    signature = torch.zeros(3, 4)
    signature[1] = 5.0
    net.initialize(given, delta_genes=signature)
    change = (net(given) - before).abs().amax(1)
    assert change[1] > 1e-3
    assert_close(change[[0, 2]], torch.zeros(2))


def test_what_it_was_not_built_for_is_refused():
    net = conditioner(context_channels=(5,))
    given = known()
    with pytest.raises(ValueError, match="'genes' of width none"):
        net(given._replace(transition=None))
    with pytest.raises(ValueError, match="'context' of width 5"):
        net(Condition(torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="'context' of width 5"):
        net(Condition())
    with pytest.raises(ValueError, match="no 'transition'"):
        net(given._replace(genes=None))
    with pytest.raises(ValueError, match="a 'transition' for each"):
        conditioner(num_transitions=2)(Condition())


def test_there_must_be_something_to_condition_on():
    with pytest.raises(ValueError, match="something to condition on"):
        TransitionConditioner()
    with pytest.raises(ValueError, match="got no transition"):
        TransitionConditioner(num_genes=3, num_delta_genes=3)


def test_signatures_of_other_transitions_are_refused():
    with pytest.raises(ValueError, match="'delta_genes' of shape \\[3, 4\\]"):
        conditioner(**ALL).initialize(known(), delta_genes=torch.zeros(2, 4))
