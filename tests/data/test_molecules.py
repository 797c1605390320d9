"""Molecules on disk: windows, layouts of machines, writing that is whole or not there, damage."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import spatiagraph as sg
from spatiagraph.data.colocalization import (
    Colocalization,
    SortedMolecules,
    cell_molecules,
    gene_pair_tests,
    sort_molecules,
)
from spatiagraph.data.molecules import CellOutlines, Molecules, MoleculeTable, store
from spatiagraph.data.read.molecules import plain_columns, read_any_molecules
from spatiagraph.data.transcripts import filter_transcripts


def tissue(num_cells=60, size=40, seed=0, genes=15):
    """Round cells on a grid, a few molecules in none, and controls."""
    rng = np.random.default_rng(seed)
    cell = np.repeat(np.arange(num_cells), size)
    centre = np.stack(np.divmod(cell, 10), axis=1) * 15.0
    pos = centre + rng.normal(0, 3, (len(cell), 2))
    frame = pd.DataFrame(pos.astype(np.float32), columns=["x", "y"])
    frame["gene"] = np.array([*(f"G{i}" for i in range(genes)), "NegControl1"])[
        rng.integers(0, genes + 1, len(cell))
    ]
    frame["cell_id"] = np.where(rng.random(len(cell)) < 0.1, "UNASSIGNED", [f"c{i}" for i in cell])
    frame["qv"] = rng.choice([40.0, 10.0], len(cell), p=[0.9, 0.1])
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "raw.parquet"
    tissue().to_parquet(path)
    return path


def rows(frame):
    """Rows as a sorted list, whatever their order and types."""
    frame = frame.assign(gene=frame["gene"].astype(str), cell_id=frame["cell_id"].fillna("none"))
    return sorted(map(tuple, frame[["x_um", "y_um", "gene", "cell_id", "qv"]].to_numpy().tolist()))


SMALL_STEPS = {"bucket_size": 700, "batch_size": 500}
"""Several batches and buckets from a small table."""


def test_windows_side_by_side_hold_every_molecule_once(table, tmp_path):
    molecules = Molecules.create(tmp_path / "tiles.parquet", table, tile_size=100, **SMALL_STEPS)
    assert molecules.num_tiles > 20
    whole = pd.read_parquet(table).rename(columns={"x": "x_um", "y": "y_um"})
    whole["cell_id"] = whole["cell_id"].replace("UNASSIGNED", np.nan)
    assert molecules.num_molecules == len(whole)
    assert molecules.num_cells == 60
    assert molecules.genes.tolist() == sorted(whole["gene"].unique())
    found = []
    for x in range(-20, 120, 35):
        for y in range(-20, 180, 40):
            window = molecules.window(x, y, x + 35, y + 40)
            inside = whole["x_um"].between(x, x + 35, "left")
            inside &= whole["y_um"].between(y, y + 40, "left")
            assert rows(window) == rows(whole[inside])
            found.append(window)
    assert sorted(sum(map(rows, found), [])) == rows(whole)
    assert sorted(sum(map(rows, molecules.tiles()), [])) == rows(whole)


def test_a_window_reads_the_tiles_it_touches_alone(table, tmp_path, monkeypatch):
    molecules = Molecules.create(tmp_path / "tiles.parquet", table, tile_size=100)
    read, original = [], store.read_groups

    def counted(path, note, groups, *how):
        read.extend(groups)
        return original(path, note, groups, *how)

    monkeypatch.setattr(store, "read_groups", counted)
    window = molecules.window(0, 0, 20, 20, columns=["gene"])
    assert list(window) == ["x_um", "y_um", "gene"]
    assert 0 < len(read) < molecules.num_tiles / 3
    assert molecules.window(1000, 1000, 1001, 1001).empty
    assert list(molecules.window(1000, 1000, 1001, 1001)) == list(molecules.window(0, 0, 20, 20))


def test_windows_out_of_order_and_unknown_columns_are_refused(table, tmp_path):
    molecules = Molecules.create(tmp_path / "tiles.parquet", table)
    with pytest.raises(ValueError, match="x0_um below x1_um"):
        molecules.window(10, 0, 5, 5)
    with pytest.raises(ValueError, match="columns among x_um, .* got z_um"):
        molecules.window(0, 0, 5, 5, columns=["z_um"])
    with pytest.raises(ValueError, match="tile_size"):
        Molecules.create(tmp_path / "tiles.parquet", table, tile_size=0)


def test_the_same_molecules_in_another_order_are_the_same_file(table, tmp_path):
    Molecules.create(tmp_path / "a.parquet", table, tile_size=100)
    shuffled = tmp_path / "shuffled.parquet"
    pd.read_parquet(table).sample(frac=1, random_state=1).to_parquet(shuffled)
    Molecules.create(tmp_path / "b.parquet", shuffled, tile_size=100)
    a, b = (pd.read_parquet(tmp_path / f"{n}.parquet") for n in "ab")
    pd.testing.assert_frame_equal(a[["x_um", "y_um", "gene"]], b[["x_um", "y_um", "gene"]])


@pytest.mark.parametrize(("sep", "decimal"), [(";", ","), ("\t", ".")])
def test_fields_of_a_table_may_be_parted_otherwise(table, tmp_path, sep, decimal):
    path = tmp_path / "raw.csv"
    pd.read_parquet(table).astype({"x": float, "y": float}).to_csv(
        path, sep=sep, decimal=decimal, index=False
    )
    (a,), (b,) = (MoleculeTable(each).batches() for each in (table, path))
    assert_allclose(b.values["x_um"], a.values["x_um"], rtol=1e-6)
    assert_array_equal(b.gene, a.gene)


def as_xenium(frame, folder):
    frame = frame.rename(columns={"x": "x_location", "y": "y_location", "gene": "feature_name"})
    frame["feature_name"] = frame["feature_name"].str.encode("ascii")
    frame.to_parquet(folder / "transcripts.parquet")
    return folder


def as_cosmx(frame, folder):
    number = frame["cell_id"].str.removeprefix("c").replace("UNASSIGNED", "0").astype(int)
    inside = frame["cell_id"] != "UNASSIGNED"
    theirs = pd.DataFrame(
        {
            "fov": 1 + number % 3,
            "cell_ID": np.where(inside, number // 3 + 1, 0),
            "x_global_px": frame["x"] / np.float32(0.12),
            "y_global_px": frame["y"] / np.float32(0.12),
            "target": frame["gene"],
        }
    )
    theirs.to_csv(folder / "S1_tx_file.csv.gz", index=False)
    return folder


def as_merscope(frame, folder):
    theirs = frame.rename(columns={"x": "global_x", "y": "global_y"})
    theirs["cell_id"] = theirs["cell_id"].str.removeprefix("c").replace("UNASSIGNED", "-1")
    theirs.assign(global_z=0.0).to_csv(folder / "detected_transcripts.csv", index=False)
    return folder


def as_store(frame, folder):
    slide = sg.make_tissue(60, num_genes=20, image=None)
    slide.adata.obs_names = [f"c{i}" for i in range(60)]
    molecules = frame.rename(columns={"x": "x_um", "y": "y_um"})
    molecules["cell_id"] = molecules["cell_id"].replace("UNASSIGNED", np.nan)
    return sg.write(sg.Slide(slide.adata, transcripts=molecules), folder / "slide.zarr")


def as_baysor(frame, folder):
    number = frame["cell_id"].replace("UNASSIGNED", "c-1").str.removeprefix("c").astype(int) + 1
    theirs = frame[["x", "y", "gene"]].assign(cell=number, confidence=1.0)
    theirs.to_csv(folder / "segmentation.csv", index=False)
    return folder / "segmentation.csv"


@pytest.mark.parametrize("layout", [as_xenium, as_cosmx, as_merscope, as_store, as_baysor])
def test_every_machine_streams(layout, tmp_path):
    frame = tissue()
    place = layout(frame, tmp_path)
    mpp = 0.12 if layout is as_cosmx else None
    table = MoleculeTable(place, mpp, batch_size=500)
    parts = list(table.batches())
    gene = np.array(table.genes)[np.concatenate([p.gene for p in parts])]
    x, y = (np.concatenate([p.values[c] for p in parts]) for c in ("x_um", "y_um"))
    cells = np.array([*table.cells, "none"])[np.concatenate([p.cell for p in parts])]
    order, own = np.lexsort((gene, y, x)), frame.sort_values(["x", "y", "gene"])
    assert_allclose(x[order], own["x"], rtol=1e-5, atol=1e-4)
    assert gene[order].tolist() == own["gene"].tolist()
    named = own["cell_id"].replace("UNASSIGNED", "none")
    if layout is as_cosmx:
        number = named.str.removeprefix("c").replace("none", "-1").astype(int)
        named = (number // 3 + 1).astype(str) + "_" + (1 + number % 3).astype(str)
        named = named.where(number >= 0, "none")
    elif layout is as_merscope:
        named = named.str.removeprefix("c")
    elif layout is as_baysor:
        named = (named.replace("none", "c-1").str.removeprefix("c").astype(int) + 1).astype(str)
        named = named.replace("0", "none")
        whole = read_any_molecules(place)
        assert whole["cell_id"].fillna("none").tolist() == cells.tolist()
    assert cells[order].tolist() == named.tolist()
    removed = sort_molecules(place, tmp_path / "sorted.parquet", mpp=mpp, min_qv=0, min_counts=20,
                             **SMALL_STEPS)  # fmt: skip
    assert removed.loc["unassigned", "molecules"] > 0
    assert SortedMolecules(tmp_path / "sorted.parquet").num_cells == 60


@pytest.mark.parametrize(
    ("have", "taken"),
    [
        ("x y z gene cell_id", "x y z gene cell_id"),
        ("x y z x_um y_um gene", "x_um y_um gene"),
        ("x y z_um x_um gene", "x y gene"),
        ("x y gene cell cell_id", "x y gene cell_id"),
        ("x y gene cell cell_id is_noise", "x y gene cell"),
        ("x y gene cell", "x y gene cell"),
    ],
)
def test_plain_columns_are_of_one_unit_and_one_segmentation(have, taken):
    assert set(plain_columns(have.split())) == set(taken.split())


def test_pixels_of_cosmx_need_a_size(tmp_path):
    as_cosmx(tissue(), tmp_path)
    with pytest.raises(ValueError, match=r"size of a pixel .* Pass mpp=0\.12"):
        Molecules.create(tmp_path / "tiles.parquet", tmp_path)


def test_sorting_tiles_gives_what_sorting_the_table_gives(table, tmp_path):
    tiles = Molecules.create(tmp_path / "tiles.parquet", table, tile_size=100)
    removed = [
        sort_molecules(path, tmp_path / f"{i}.parquet", min_counts=25)
        for i, path in enumerate((table, tiles.path))
    ]
    pd.testing.assert_frame_equal(*removed)
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / f"{i}.parquet") for i in (0, 1)))


@pytest.mark.parametrize("write", [Molecules.create, lambda out, path: sort_molecules(path, out)])
def test_an_interrupted_writing_leaves_the_old_file_and_nothing_else(
    table, tmp_path, write, monkeypatch
):
    out = tmp_path / "made" / "molecules.parquet"
    write(out, table)
    before, wrote = out.read_bytes(), []

    def interrupted(self, *args):
        wrote.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr("spatiagraph.data.molecules.notes.NotedWriter.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(out, table)
    assert wrote
    assert out.read_bytes() == before
    assert [p.name for p in out.parent.iterdir()] == ["molecules.parquet"]


def whole(path, kind):
    """All that a file holds."""
    if kind is Molecules:
        return [rows(part) for part in Molecules(path).tiles()]
    parts = list(SortedMolecules(path).parts())
    return [[p.cell_ids.tolist(), p.ptr.tolist(), p.gene.tolist(), p.pos.tolist()] for p in parts]


def answer(path, kind):
    """What is said of a file, and else what it holds."""
    try:
        return None, whole(path, kind)
    except ValueError as err:
        return str(err), None


@pytest.mark.parametrize("kind", [Molecules, SortedMolecules])
def test_a_changed_byte_is_refused_in_words_or_changes_nothing(table, tmp_path, kind):
    path = tmp_path / "ours.parquet"
    if kind is Molecules:
        Molecules.create(path, table, tile_size=600)
    else:
        sort_molecules(table, path, bucket_size=600)
    good, expected = path.read_bytes(), whole(path, kind)
    rng, refused = np.random.default_rng(0), 0
    for place in [*rng.integers(0, len(good), 60), *range(len(good) - 40, len(good))]:
        bad = bytearray(good)
        bad[place] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        said, found = answer(path, kind)
        if said is None:
            assert found == expected, place
        else:
            assert said.startswith("Expected"), (place, said)
            assert "ours.parquet" in said, (place, said)
            refused += 1
    assert refused > 60
    for cut in (0, 4, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:cut])
        with pytest.raises(ValueError, match=r"Expected .*ours\.parquet"):
            whole(path, kind)


def test_files_of_another_kind_are_refused(table, tmp_path):
    tiles = Molecules.create(tmp_path / "tiles.parquet", table)
    sort_molecules(table, tmp_path / "sorted.parquet")
    with pytest.raises(ValueError, match=r"file of Molecules.create, sorted.parquet is in the ord"):
        Molecules(tmp_path / "sorted.parquet")
    with pytest.raises(ValueError, match=r"file of sort_molecules, tiles.parquet is in the order"):
        SortedMolecules(tiles.path)
    with pytest.raises(ValueError, match=r"raw.parquet is none: make it with Molecules.create"):
        Molecules(table)
    with pytest.raises(FileNotFoundError, match="no such file"):
        Molecules(tmp_path / "nowhere.parquet")
    with pytest.raises(ValueError, match=r"take transcripts.parquet of the same folder"):
        MoleculeTable(tmp_path / "transcripts.zarr.zip")


def test_tests_of_pairs_are_the_same_part_by_part(table, tmp_path):
    """SpatialFormer fact F18, of a file that is never in memory."""
    out = tmp_path / "sorted.parquet"
    sort_molecules(table, out, min_counts=20, bucket_size=200)
    held = cell_molecules(
        pd.read_parquet(table).rename(columns={"x": "x_um", "y": "y_um"}), min_counts=20
    )
    filed, rule = SortedMolecules(out), Colocalization(radius_um=4.0, min_copies=2)
    assert len(list(filed.parts())) > 5
    assert (filed.num_cells, filed.num_molecules) == (held.num_cells, held.num_molecules)
    assert filed.cell_ids.tolist() == held.cell_ids.tolist()
    for a, b in zip(rule(filed), rule(held), strict=True):
        assert_array_equal(a, b)
    options = {"num_draws": 3, "min_support": 2}
    tested = gene_pair_tests(held, rule(held), rule, **options)
    assert len(tested) > 20
    pd.testing.assert_frame_equal(tested, gene_pair_tests(filed, rule(filed), rule, **options))


def squares(names, side=12.0):
    """Square outlines around the cells of ``tissue``."""
    number = np.array([int(n[1:]) for n in names])
    centre = np.stack(np.divmod(number, 10), axis=1) * 15.0
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2
    pos = (centre[:, None] + corner).reshape(-1, 2)
    return pd.DataFrame(pos, columns=["vertex_x", "vertex_y"]).assign(cell_id=np.repeat(names, 4))


def test_molecules_near_the_outline_of_their_cell_are_left_out(table, tmp_path):
    frame = pd.read_parquet(table).rename(columns={"x": "x_um", "y": "y_um"})
    names = sorted(set(frame["cell_id"]) - {"UNASSIGNED", "c7"})  # c7 has no outline
    outlines = CellOutlines.from_table(squares(names), margin_um=1.0)
    kept, removed = filter_transcripts(frame, min_counts=1, min_genes=1, outlines=outlines)
    assert list(removed.index) == [
        "quality", "control", "unassigned", "outline", "min_counts", "min_genes"
    ]  # fmt: skip
    number = kept["cell_id"].str[1:].astype(int)
    centre = np.stack(np.divmod(number, 10), axis=1) * 15.0
    reach = np.abs(kept[["x_um", "y_um"]].to_numpy() - centre).max(axis=1)
    assert reach.max() <= 5.0
    every = filter_transcripts(frame, min_counts=1, min_genes=1).transcripts
    inside = np.abs(
        every[["x_um", "y_um"]].to_numpy()
        - np.stack(np.divmod(every["cell_id"].str[1:].astype(int), 10), axis=1) * 15.0
    ).max(axis=1) <= 5.0  # fmt: skip
    inside &= (every["cell_id"] != "c7").to_numpy()
    assert len(kept) == inside.sum() > 0
    assert removed.loc["outline"].tolist() == [len(every) - len(kept), 1]
    streamed = sort_molecules(
        table, tmp_path / "sorted.parquet", min_counts=1, min_genes=1, outlines=outlines
    )
    pd.testing.assert_frame_equal(streamed, removed)


def test_distance_to_an_outline_is_that_of_shapely():
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 13))
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * rng.uniform(3, 9, (13, 1))
    pos = rng.uniform(-10, 10, (2000, 2))
    table = pd.DataFrame(ring, columns=["x", "y"]).assign(cell_id="a")
    polygon, points = shapely.Polygon(ring), shapely.points(pos)
    for margin in (0.0, 0.7, 2.0):
        kept = CellOutlines.from_table(table, margin).keep(["a"], np.zeros(2000, int), *pos.T)
        far = shapely.distance(polygon.exterior, points) >= margin
        assert_array_equal(kept, shapely.contains(polygon, points) & far)
        assert 50 < kept.sum() < 1900


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="vertex_x"), "columns cell_id, vertex_x and vertex_y"),
        (lambda t: t.assign(vertex_x=np.nan), "corners of outlines as finite numbers"),
        (lambda t: t[:2], "at least 3 corners per outline"),
    ],
)
def test_outlines_that_are_none_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CellOutlines.from_table(change(squares(["c0"])))


def test_outlines_of_other_cells_are_refused(table, tmp_path):
    other = CellOutlines.from_table(squares(["c0"]).assign(cell_id="x"))
    frame = pd.read_parquet(table).rename(columns={"x": "x_um", "y": "y_um"})
    for run in (
        lambda: cell_molecules(frame, outlines=other),
        lambda: sort_molecules(table, tmp_path / "out.parquet", outlines=other),
    ):
        with pytest.raises(ValueError, match="such as 'x', molecules of such as 'c"):
            run()
    with pytest.raises(ValueError, match="margin_um"):
        CellOutlines.from_table(squares(["c0"]), margin_um=-1)


def both(frame, tmp_path, **options):
    """The two ways from molecules to cells, as functions to be refused."""
    path = tmp_path / "raw.parquet"
    frame.to_parquet(path)
    held = frame.rename(columns={"x": "x_um", "y": "y_um"})
    return (
        lambda: cell_molecules(held, **options),
        lambda: sort_molecules(path, tmp_path / "sorted.parquet", **options),
    )


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        pytest.param(
            lambda f: f.drop(columns="cell_id"), {}, "cell_id", id="molecules without cell ids"
        ),
        pytest.param(
            lambda f: f.assign(x=f["x"] / 0.1, y=f["y"] / 0.1),
            {},
            "positions in µm .* Are they pixels",
            id="pixels",
        ),
        pytest.param(
            lambda f: pd.concat([f, f.assign(x=f["x"] + 5000)]),
            {},
            "cells of several slides have the same names",
            id="two slides with the same cell ids",
        ),
        pytest.param(
            lambda f: f, {"min_counts": 500}, "at least 500 molecules", id="cells below the filters"
        ),
        pytest.param(
            lambda f: f.assign(qv=np.nan), {}, "at least 30 molecules", id="no quality is known"
        ),
    ],
)
def test_molecules_that_cannot_be_used_are_refused(tmp_path, change, options, message):
    for run in both(change(tissue()), tmp_path, **options):
        with pytest.raises(ValueError, match=f"Expected .*{message}"):
            run()


def test_large_cells_are_taken_when_they_are_said_to_be_large(tmp_path):
    frame = tissue()
    frame[["x", "y"]] *= 10
    for run in both(frame, tmp_path, max_extent_um=400, min_counts=20):
        run()


def test_without_quality_and_with_bytes_and_separators_the_result_is_the_same(tmp_path):
    frame = tissue().drop(columns="qv")
    frame["gene"] = frame["gene"].replace("G1", "G|1,\n")
    plain = [run() for run in both(frame, tmp_path)]
    for name in ("gene", "cell_id"):
        frame[name] = frame[name].str.encode("utf-8")
    coded = [run() for run in both(frame, tmp_path)]
    assert plain[0].removed.loc["quality"].tolist() == [0, 0]
    assert plain[0].removed.loc["control", "molecules"] > 0
    pd.testing.assert_frame_equal(plain[0].removed, coded[0].removed)
    pd.testing.assert_frame_equal(plain[1], coded[1])
    assert "G|1,\n" in plain[0].genes
    for a, b in zip(plain[0][:5], coded[0][:5], strict=True):
        assert_array_equal(a, b)
    rule = Colocalization(radius_um=4.0, min_copies=2)
    adata = rule(plain[0]).to_adata()
    assert {"G|1,\n"} <= {*adata.var["gene_a"], *adata.var["gene_b"]}


def test_genes_that_make_one_name_of_two_pairs_are_refused():
    """``A|B`` with ``C`` and ``A`` with ``B|C`` would both be ``A|B|C``."""
    blob = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    frame = pd.DataFrame(blob * 2, columns=["x_um", "y_um"], dtype=float)
    frame["gene"] = ["A|B"] * 3 + ["C"] * 3 + ["A"] * 3 + ["B|C"] * 3
    frame["cell_id"] = ["c"] * 6 + ["d"] * 6
    pairs = Colocalization()(cell_molecules(frame, min_counts=1, min_genes=1))
    assert len(pairs.pairs) == 2
    with pytest.raises(ValueError, match="rename the genes"):
        pairs.to_adata()


def test_genes_that_a_table_does_not_know_are_refused():
    frame = tissue().rename(columns={"x": "x_um", "y": "y_um"})
    with pytest.raises(ValueError, match="molecules of the 2 given genes, got others such as G10"):
        cell_molecules(frame, genes=["G0", "G1"], min_counts=20)


def test_the_front_door_refuses_molecules_that_lie_elsewhere_than_their_cells():
    slide = sg.make_tissue(60, num_genes=20, image=None)
    slide.adata.obs_names = [f"c{i}" for i in range(60)]
    frame = tissue().rename(columns={"x": "x_um", "y": "y_um"})
    centre = np.stack(np.divmod(np.arange(60), 10), axis=1) * 15.0
    slide.adata.obsm["spatial"] = centre + np.random.default_rng(0).normal(0, 2, (60, 2))
    sg.colocalized_genes(sg.Slide(slide.adata, transcripts=frame, assume_um=True), num_draws=1)
    frame[["x_um", "y_um"]] /= 0.2125
    with pytest.raises(ValueError, match=r"where their cells are.* pixels"):
        sg.colocalized_genes(sg.Slide(slide.adata, transcripts=frame, assume_um=True), num_draws=1)
