import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from spatiagraph.data import write_cell_groups

CELLS = AnnData(
    obs=pd.DataFrame(
        {"domain": pd.Categorical(["1", None, "a,b"]), "none": np.full(3, np.nan)},
        index=["aaaa-1", "aaab-1", "aaac-1"],
    )
)


def test_groups_are_written_by_cell_and_those_without_one_left_out(tmp_path):
    path = write_cell_groups(CELLS, "domain", tmp_path / "groups.csv")
    assert path.read_text() == 'cell_id,group\naaaa-1,1\naaac-1,"a,b"\n'


@pytest.mark.parametrize(
    ("column", "name", "words"),
    [
        ("domains", "g.csv", "Nearest: 'domain'"),
        ("none", "g.csv", "got no value"),
        ("domain", "g.txt", "ends in .csv"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, column, name, words):
    with pytest.raises(ValueError, match=words):
        write_cell_groups(CELLS, column, tmp_path / name)
    assert not (tmp_path / name).exists()
