"""Arguments of another type are named where a person calls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph._typed import typed
from spatiagraph.retrieval import NicheIndex


@typed
def called(
    path: str | Path,
    number: float | None = None,
    count: int = 1,
    flag: bool = False,
    pair: tuple[float, float] | Literal["all"] = "all",
    many: Sequence[int] = (),
    table: Mapping[str, int] | None = None,
    anything: Any = None,
) -> str:
    """Give what came as the path."""
    return str(path)


@pytest.mark.parametrize(
    "arguments",
    [
        {"number": np.float32(2)},
        {"number": 3},
        {"number": np.array(1.5)},
        {"count": np.int64(2)},
        {"flag": np.bool_(True)},
        {"pair": [1, 2.0]},
        {"pair": np.zeros(2)},
        {"pair": "none"},
        {"many": range(3)},
        {"many": np.arange(3)},
        {"table": {}},
        {"anything": object()},
    ],
)
def test_what_may_stand_for_a_type_passes(arguments):
    assert called(Path("a"), **arguments) == "a"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": 3}, "Expected 'path' as str or Path, got int 3"),
        ({"path": None}, "Expected 'path' as str or Path, got NoneType None"),
        ({"number": "3"}, "Expected 'number' as float or None, got str '3'"),
        ({"number": True}, "Expected 'number' as float or None, got bool"),
        ({"number": np.zeros(2)}, "Expected 'number' as float or None, got ndarray"),
        ({"number": 1j}, "Expected 'number' as float or None, got complex"),
        ({"count": 1.0}, "Expected 'count' as int, got float"),
        ({"flag": 1}, "Expected 'flag' as bool, got int"),
        ({"pair": (1.0,)}, "Expected 'pair' as tuple.float, float. or 'all', got tuple"),
        ({"pair": ("a", 2)}, "Expected 'pair' as tuple"),
        ({"many": "ab"}, "Expected 'many' as Sequence.int., got str"),
        ({"table": []}, "Expected 'table' as Mapping.str, int. or None, got list"),
    ],
)
def test_other_types_are_refused_with_the_name_of_the_argument(arguments, message):
    with pytest.raises(TypeError, match=message):
        called(**{"path": "a", **arguments})


@pytest.mark.parametrize("wrong", [3, None, b"x", [], {}, object(), np.zeros(2)])
def test_the_doors_of_the_library_name_what_they_were_given(wrong):
    slide = sg.make_tissue(50, image=None, seed=0)
    for call in (
        lambda: sg.read(wrong),
        lambda: sg.embed(wrong, slide),
        lambda: sg.fit(wrong, [slide], max_epochs=1),
        lambda: sg.SlideImage.open(wrong),
        lambda: NicheIndex.load(wrong),
    ):
        with pytest.raises(TypeError, match="^Expected '(model|path|directory)"):
            call()
    if wrong is not None:
        with pytest.raises(TypeError, match="^Expected 'mpp' as float or None, got"):
            sg.read("a.h5ad", mpp="3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"obs": 3}, "Expected 'obs' as DataFrame or None, got int 3"),
        ({"seed": 1.5}, "Expected 'seed' as int, got float"),
        ({"min_recall": "high"}, "Expected 'min_recall' as float, got str"),
    ],
)
def test_an_index_names_what_it_was_given(arguments, message):
    embeddings = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(TypeError, match=message):
        NicheIndex.build(embeddings, **arguments)
    for search in (NicheIndex.build(embeddings).search, NicheIndex.build(embeddings).search_like):
        with pytest.raises(TypeError, match="Expected 'k' as int, got"):
            search([0, 1, 2], k=None)
