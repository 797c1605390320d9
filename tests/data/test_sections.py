"""Sections in one table: read one by one, refused as one, or apart and one slide."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

import spatiagraph as sg
from spatiagraph.data.sections import check_one_section


def spots(kind="square", pitch=100.0, side=18):
    y, x = np.mgrid[:side, :side].astype(float)
    if kind == "hex":
        x, y = x + 0.5 * (y % 2), y * np.sqrt(3) / 2
    return np.stack([x.ravel(), y.ravel()], 1) * pitch


def cells(seed=0, side=18, spacing=10.0):
    off = np.random.default_rng(seed).uniform(-0.35, 0.35, (side**2, 2))
    return spots("square", spacing, side) + off * spacing


def turned(pos, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (pos - pos.mean(0)) @ np.array([[c, -s], [s, c]]) + pos.mean(0)


def table(pos, **obs):
    return pd.DataFrame(obs, index=[f"c{i}" for i in range(len(pos))])


def two(shift=(0.0, 0.0), names=("old", "young"), key="library_id"):
    parts = {}
    for seed, name in enumerate(names):
        pos = cells(seed) + seed * np.array(shift)
        counts = np.random.default_rng(seed).poisson(2, (len(pos), 9)).astype(np.float32)
        parts[name] = anndata.AnnData(counts, obs=table(pos))
        parts[name].var_names = [f"G{i}" for i in range(9)]
        parts[name].obsm["spatial"] = pos
    return anndata.concat(parts, label=key, index_unique="-")


@pytest.mark.parametrize("key", ["library_id", "sample", "Sample ID", "batch", "fov", "donor"])
def test_sections_over_each_other_are_refused_by_the_column_that_names_them(key):
    with pytest.raises(ValueError, match=rf"2 in obs\['{key}'\] .*Pass sample_key='{key}'"):
        sg.Slide(two(key=key))


def test_sections_are_read_one_by_one(tmp_path):
    both = two()
    both.write_h5ad(tmp_path / "both.h5ad")
    slides = sg.read(tmp_path / "both.h5ad", sample_key="library_id")
    assert [s.slide_id for s in slides] == ["old", "young"]
    for seed, slide in enumerate(slides):
        np.testing.assert_array_equal(slide.pos, cells(seed))
        assert slide.adata.obs["library_id"].nunique() == 1
    named = sg.read(both, sample_key="library_id", slide_id="brain")
    assert [s.slide_id for s in named] == ["brain-old", "brain-young"]
    assert len(sg.read(both[both.obs["library_id"] == "old"].copy(), sample_key="library_id")) == 1


def test_a_file_of_one_section_gives_a_list_of_one_and_a_wrong_column_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"obs\['sample'\], got none. .*'library_id'"):
        sg.read(two(), sample_key="sample")
    holes = two()
    holes.obs["library_id"] = holes.obs["library_id"].astype(object)
    holes.obs.iloc[3, 0] = np.nan
    with pytest.raises(ValueError, match=r"none for 1 of 648: row 3 'c3-old'"):
        sg.read(holes, sample_key="library_id")


def test_sections_of_spots_have_each_their_scale_and_image(tmp_path):
    parts, images = {}, {}
    for name, pitch in (("a", 138.0), ("b", 205.0)):
        pos = spots("hex", pitch) + 500
        parts[name] = anndata.AnnData(np.ones((len(pos), 3), np.float32), obs=table(pos))
        parts[name].var_names = list("xyz")
        parts[name].obsm["spatial"] = pos
        side = int(pos.max() * 0.1) + 40
        images[name] = {
            "images": {"hires": np.full((side, side, 3), ord(name), np.uint8)},
            "scalefactors": {"spot_diameter_fullres": 0.65 * pitch, "tissue_hires_scalef": 0.1},
        }
    both = anndata.concat(parts, label="library_id", index_unique="-")
    both.uns["spatial"] = images
    for slide in sg.read(both, sample_key="library_id"):
        assert np.ptp(slide.pos[:, 0]) == pytest.approx(1750)
        assert slide.image is not None
        assert slide.image.pixels(slice(0, 1), slice(0, 1)).max() == ord(slide.slide_id)


@pytest.mark.parametrize("shift", [(180.0, 0.0), (400.0, 300.0), (0.0, 5000.0)])
def test_sections_and_cores_that_lie_apart_are_one_slide(shift):
    assert sg.Slide(two(shift)).num_cells == 648


@pytest.mark.parametrize("side", [5, 8, 12])
def test_stitched_fields_of_view_are_one_slide(side):
    where = [(i, j) for i in range(5) for j in range(5)]
    pos = np.concatenate([cells(n, side) + np.array(at) * 10 * side for n, at in enumerate(where)])
    check_one_section(table(pos, fov=np.repeat(np.arange(25), side**2)), pos)


@pytest.mark.parametrize("number", [2, 3, 5, 8, 40])
def test_many_sections_are_told_from_their_cells(number):
    pos = np.concatenate([cells(n, 15) for n in range(number)])
    obs = table(pos, patient=np.repeat(np.arange(number), 225))
    with pytest.raises(ValueError, match=f"got {number} in obs"):
        check_one_section(obs, pos)


def test_labels_that_are_no_sections_may_mix():
    both = two()
    both.obs = both.obs.rename(columns={"library_id": "cell_type"})
    both.obs_names = [f"c{i}" for i in range(both.n_obs)]
    assert sg.Slide(both).num_cells == 648


def test_sections_are_told_from_ids_that_repeat_but_for_their_end():
    both = two()
    del both.obs["library_id"]
    with pytest.raises(ValueError, match=r"ids .* same but for how they end \('old', 'young'\)"):
        sg.Slide(both)
    assert sg.Slide(both, one_section=True).num_cells == 648
    assert sg.read(both, one_section=True).num_cells == 648


@pytest.mark.parametrize("kind", ["hex", "square"])
@pytest.mark.parametrize(
    "second",
    [
        lambda pos: pos + [33, 21],
        lambda pos: pos + [50, 0],
        lambda pos: turned(pos, 11) + [13, 7],
        lambda pos: pos * 0.93 + [13, 7],
        lambda pos: pos + np.random.default_rng(1).normal(0, 3, pos.shape) + [33, 21],
    ],
    ids=["moved", "halfway", "turned", "scaled", "bent"],
)
def test_two_lattices_over_each_other_are_seen(kind, second):
    one = spots(kind)
    pos = np.concatenate([one, second(one)])
    with pytest.raises(ValueError, match=r"spots form \d lattices"):
        check_one_section(table(pos), pos)


@pytest.mark.parametrize("kind", ["hex", "square"])
def test_one_lattice_is_one_section_bent_or_with_holes(kind):
    pos = spots(kind, side=30)
    check_one_section(table(pos), pos)
    bent = pos + np.random.default_rng(0).normal(0, 6, pos.shape)
    check_one_section(table(bent), bent)
    holes = pos[np.random.default_rng(0).random(len(pos)) < 0.7]
    check_one_section(table(holes), holes)


def test_sections_at_the_same_places_are_seen():
    pos = np.concatenate([spots(), spots()])
    with pytest.raises(ValueError, match="100% of the cells share their place"):
        check_one_section(table(pos), pos)


@pytest.mark.parametrize("key", ["brain_section_label", "dataset", "well", "time_point"])
def test_columns_that_could_name_sections_do_where_all_cells_are_mixed(key):
    pos = np.concatenate([cells(0), cells(1)])
    with pytest.raises(ValueError, match=f"sample_key={key!r}"):
        check_one_section(table(pos, **{key: np.repeat(["a", "b"], len(pos) // 2)}), pos)


def test_areas_of_one_section_are_no_sections():
    pos = cells()
    inside = np.hypot(*(pos - pos.mean(0)).T) < 40
    for key in ("region", "tissue", "dataset"):
        check_one_section(table(pos, **{key: np.where(inside, "follicle", "around")}), pos)
    check_one_section(table(pos, cell_type=np.resize(["a", "b"], len(pos))), pos)


@pytest.mark.parametrize("key", ["genotype", "age", "well", "treatment", "sex"])
@pytest.mark.parametrize("number", [2, 3, 6])
def test_labels_that_mix_cell_by_cell_in_one_tissue_are_no_sections(key, number):
    """As in a chimaera: cells keep their distance from each other whatever they are called."""
    pos = cells(side=30)
    names = np.random.default_rng(0).permutation(np.resize([f"g{i}" for i in range(number)], 900))
    check_one_section(table(pos, **{key: names}), pos)
    both = np.concatenate([cells(n, 30) for n in range(number)])
    apart = np.repeat([f"g{i}" for i in range(number)], 900)
    with pytest.raises(ValueError, match=f"sample_key={key!r}"):
        check_one_section(table(both, **{key: apart}), both)


def test_cells_are_searched_for_their_neighbours_once(monkeypatch):
    built = []

    def tree(pos):
        built.append(len(pos))
        return cKDTree(pos)

    monkeypatch.setattr("spatiagraph.data.sections.cKDTree", tree)
    pos = cells()
    names = np.resize(["a", "b"], len(pos))
    check_one_section(table(pos, genotype=names), pos)
    once = built.copy()
    built.clear()
    check_one_section(table(pos, genotype=names, age=names, well=names, sex=names), pos)
    assert built == once


def test_true_and_false_name_no_sections():
    pos = cells()
    check_one_section(table(pos, held_out_sample=np.resize([True, False], len(pos))), pos)
