"""Damaged files and wrong options are refused in one clear line, or read as they were."""

import pytest
from fuzzing.cases import draw, table
from fuzzing.worker import Worker

FIXED = 20_261


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    bases = tmp_path_factory.mktemp("fuzz") / "bases"
    bases.mkdir()
    with Worker(bases) as ready:
        ready.make()
        yield ready


def tried(worker, cases):
    """Outcomes of cases, and a report of those that are not clean."""
    outcomes = [(case, worker.ask(case)) for case in cases]
    bad = [f"{case}: {outcome}" for case, outcome in outcomes if outcome.kind != "clean"]
    return outcomes, "\n".join([*bad, table(outcomes)])


def test_a_fixed_set_of_damages_is_handled(worker):
    outcomes, said = tried(worker, draw(FIXED, 120, quick=True))
    assert {outcome.kind for _, outcome in outcomes} == {"clean"}, said


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_damages_of_other_seeds_are_handled(worker, seed):
    outcomes, said = tried(worker, draw(seed, 1200))
    assert {outcome.kind for _, outcome in outcomes} == {"clean"}, said
