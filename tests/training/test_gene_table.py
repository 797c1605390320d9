"""Vectors of genes from molecules: symmetries of the network, what it learns, and who reads it."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import GeneTable
from spatiagraph.data.colocalization import cell_molecules
from spatiagraph.models import (
    spatialformer_recipe,
    spatialformer_tiny,
    spatialformer_vocabulary,
)
from spatiagraph.nn import GeneTokenEncoder, TranscriptSAGE
from spatiagraph.training import fit_gene_table, molecule_graph


@pytest.fixture(scope="module")
def molecules():
    """Genes A and B in the same spots, C and D in others."""
    rng = np.random.default_rng(0)
    spot = np.repeat(rng.uniform(0, 400, (600, 2)), 4, axis=0)
    gene = np.where(np.repeat(rng.random(600) < 0.5, 4), *(
        rng.choice(list(pair), 2400) for pair in ("AB", "CD")))  # fmt: skip
    pos = spot + rng.normal(0, 0.5, spot.shape)
    table = pd.DataFrame(pos, columns=["x_um", "y_um"]).assign(gene=gene)
    table["cell_id"] = (np.arange(2400) // 8).astype(str)
    return cell_molecules(table, min_counts=1, min_genes=1, max_extent_um=1000)


@pytest.fixture(scope="module")
def fitted(molecules):
    graph = molecule_graph([molecules])
    return fit_gene_table(graph, 16, batch_size=256, max_epochs=8, device="cpu")


def test_molecules_are_joined_both_ways_and_slides_never(molecules):
    graph = molecule_graph([molecules, molecules])
    source, target = graph.edge_index
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    assert pairs == {(b, a) for a, b in pairs}
    assert ((source < 2400) == (target < 2400)).all()
    pos = torch.from_numpy(np.tile(molecules.pos, (2, 1)))
    assert (pos[source] - pos[target]).norm(dim=1).max() <= 3
    few = molecule_graph([molecules], max_cells=10)
    assert len(few.gene) == 80


def test_a_network_does_not_know_numbers_of_nodes_or_directions(molecules):
    """SpatialFormer fact F16."""
    torch.manual_seed(0)
    graph, model = molecule_graph([molecules], max_cells=30), TranscriptSAGE(4, 8)
    expected = model(graph.gene, graph.edge_index)
    assert_close(model(graph.gene, graph.edge_index.flip(0)), expected)
    order = torch.randperm(len(graph.gene))
    at = torch.empty_like(order)
    at[order] = torch.arange(len(order))
    assert_close(model(graph.gene[order], at[graph.edge_index]), expected[order])
    nothing = torch.empty(2, 0, dtype=torch.long)
    alone = model(graph.gene, nothing)
    for g in range(4):
        assert_close(alone[graph.gene == g][:1].expand(3, -1), alone[graph.gene == g][:3])


def test_genes_that_lie_together_are_alike(fitted):
    """SpatialFormer fact F16."""
    a, b, c, d = fitted.table.rows("ABCD")
    assert min(a @ b, c @ d) > max(a @ c, a @ d, b @ c, b @ d)
    history = fitted.history
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert history["accuracy"].iloc[-1] > 0.7  # of random pairs half are in spots of one kind


def test_training_stops_where_it_is_told(molecules):
    graph = molecule_graph([molecules])
    found = fit_gene_table(graph, 8, batch_size=256, max_epochs=9, accuracy=0.6, device="cpu")
    assert len(found.history) < 9
    again = fit_gene_table(graph, 8, batch_size=256, max_epochs=9, accuracy=0.6, device="cpu")
    assert torch.equal(found.table.values, again.table.values)


def test_a_table_is_kept_and_read_by_name_by_both_models(fitted, tmp_path):
    table = GeneTable.open(fitted.table.save(tmp_path / "genes.npz"))
    assert torch.equal(table.values, fitted.table.values)
    names = ["C", "unknown", "A"]
    rows = table.rows(names)
    assert torch.equal(rows[0], table.values[2])
    assert not rows[1].any()
    model = spatialformer_tiny(spatialformer_recipe(spatialformer_vocabulary(names)), channels=16)
    model.set_gene_table(table.rows(model.vocabulary.symbols))
    assert model.genes.weight[27:30].norm(dim=1).tolist()[2] == 0
    encoder = GeneTokenEncoder(3, 16, num_layers=1)  # of SPATIA
    encoder.set_gene_table(rows)
    assert_close(encoder.identity.weight.data, rows)
    with pytest.raises(ValueError, match="got none among 1"):
        table.rows(["unknown"])
    (tmp_path / "bad.npz").write_text("genes")
    with pytest.raises(ValueError, match="a table of genes"):
        GeneTable.open(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="got names that repeat"):
        GeneTable(("A", "A"), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="ends in .npz"):
        table.save(tmp_path / "genes.csv")


@pytest.mark.parametrize(
    ("symbols", "values"),
    [
        (["A", "B"], np.eye(2) * 1j),
        (["A", "B"], np.full((2, 2), np.nan)),
        (np.array([b"A", b"B"]), np.eye(2)),
        (np.array("AB"), np.eye(2)),
        (["A", "B"], np.array([["a", "b"]] * 2)),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, symbols, values):
    np.savez(tmp_path / "other.npz", symbols=symbols, values=values)
    with pytest.raises(ValueError, match=r"Expected a table of genes in .*other\.npz"):
        GeneTable.open(tmp_path / "other.npz")


def test_a_damaged_table_of_genes_is_refused_by_name(tmp_path):
    table = GeneTable(("A", "B"), torch.eye(2))
    path = table.save(tmp_path / "table.npz")
    whole = path.read_bytes()
    damaged = [whole[:200], b"", b"text"]
    damaged += [whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :] for i in range(len(whole))]
    said = []
    for content in damaged:
        path.write_bytes(content)
        try:
            found = GeneTable.open(path)
        except ValueError as err:
            said.append(str(err))
        else:
            assert found.symbols == table.symbols
            assert torch.equal(found.values, table.values)
    assert len(said) > 300
    assert all(text.startswith(f"Expected a table of genes in {path}") for text in said)
    np.save(tmp_path / "table.npy", np.eye(2))
    with pytest.raises(ValueError, match=r"table\.npy"):
        GeneTable.open(tmp_path / "table.npy")
    with pytest.raises(ValueError, match="found a folder"):
        GeneTable.open(tmp_path)
