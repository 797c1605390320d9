import anndata
import numpy as np
import pytest

from spatiagraph.data.units import (
    check_scale,
    check_um,
    lattice,
    neighbor_distance,
    scale_from_pitch,
    similarity_scale,
)


def grid(kind: str, side: int = 20, pitch: float = 1.0, jitter: float = 0.0, seed: int = 0):
    y, x = np.mgrid[:side, :side].astype(float)
    if kind == "hex":
        x, y = x + 0.5 * (y % 2), y * np.sqrt(3) / 2
    noise = np.random.default_rng(seed).uniform(-jitter, jitter, (side * side, 2))
    return (np.stack([x.ravel(), y.ravel()], 1) + noise) * pitch


def tissue(num_cells: int = 500, spacing: float = 10.0, seed: int = 0):
    side = 2 * spacing * np.sqrt(num_cells)  # random points then lie 0.94 spacings apart
    return np.random.default_rng(seed).uniform(0, side, (num_cells, 2))


def turned(pos, degrees: float):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return pos @ np.array([[c, -s], [s, c]])


@pytest.mark.parametrize("kind", ["square", "hex"])
@pytest.mark.parametrize("degrees", [0, 17, 45])
def test_lattice_finds_kind_and_pitch_however_it_is_turned(kind, degrees):
    found = lattice(turned(grid(kind, pitch=137.9), degrees))
    assert found is not None
    assert found.kind == kind
    assert found.pitch == pytest.approx(137.9, rel=1e-6)


@pytest.mark.parametrize("kind", ["square", "hex"])
def test_pitch_of_a_jittered_lattice_is_not_its_nearest_neighbour_distance(kind):
    pos = grid(kind, pitch=218.0, jitter=0.12, side=30)
    found = lattice(pos)
    assert found is not None
    assert found.pitch == pytest.approx(218.0, rel=0.01)
    assert neighbor_distance(pos) < 0.95 * 218.0


def test_sections_turned_against_each_other_are_still_a_lattice():
    pos = np.concatenate([grid("hex", pitch=100), turned(grid("hex", pitch=100), 23) + 5000])
    found = lattice(pos)
    assert found is not None
    assert found.kind == "hex"


def test_a_lattice_with_holes_is_still_a_lattice():
    pos = grid("square", pitch=8.0, side=40)
    keep = np.random.default_rng(0).random(len(pos)) < 0.7
    found = lattice(pos[keep])
    assert found is not None
    assert found.pitch == pytest.approx(8.0, rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_tissue_is_no_lattice(seed):
    assert lattice(tissue(seed=seed)) is None


def test_too_few_or_coincident_points_are_no_lattice():
    assert lattice(grid("square", side=2)) is None
    assert lattice(np.zeros((50, 2))) is None


@pytest.mark.parametrize(
    ("kind", "pitch"), [("hex", 100), ("square", 200), ("square", 2), ("square", 8), ("square", 16)]
)
def test_known_arrays_in_um_pass(kind, pitch):
    check_um(grid(kind, pitch=pitch, jitter=0.1 if pitch == 200 else 0.0))


@pytest.mark.parametrize("spacing", [4.0, 10.0, 40.0])
def test_cells_in_um_pass(spacing):
    check_um(tissue(spacing=spacing))


@pytest.mark.parametrize("num_cells", [0, 1, 2, 5])
def test_small_slides_of_cells_pass(num_cells):
    check_um(tissue(num_cells=num_cells, spacing=10.0))


def test_a_few_visium_spots_pass_and_the_same_in_pixels_do_not():
    check_um(grid("square", side=2, pitch=100.0))
    with pytest.raises(ValueError, match="neighbour distance is 138"):
        check_um(grid("square", side=2, pitch=138.0))


@pytest.mark.parametrize(
    ("pos", "message"),
    [
        (grid("hex", pitch=138), r"hex lattice with a pitch of 138 .*Pixels.*pitch_um=100"),
        (grid("square", pitch=218, jitter=0.1), r"square lattice .*Pixels.*pitch_um=200 \(ST\)"),
        (grid("square", pitch=31.7), r"pitch of 31.7 .*mpp=.*assume_um=True"),
        (grid("square"), r"pitch of 1 .*Array indices"),
        (tissue(spacing=145), r"neighbour distance is 1\d\d\.\d and .*Pixels.*mpp=…"),
        (tissue(spacing=0.01), r"Millimetres \(mpp=1000\)"),
        (tissue(spacing=0.5), r"neighbour distance is 0\.\d+ .*scaled"),
        (tissue(spacing=1e4), r"Pixels of the image, or nm"),
        (np.zeros((20, 2)), r"on top of each other"),
    ],
)
def test_other_units_are_refused_with_a_guess_and_a_way_out(pos, message):
    with pytest.raises(ValueError, match=message):
        check_um(pos)
    check_um(pos, assume_um=True)


def test_a_pitch_of_ones_own_is_accepted_when_given():
    pos = grid("square", pitch=55.0)
    with pytest.raises(ValueError, match="pitch of 55"):
        check_um(pos)
    check_um(pos, pitch_um=55)


def test_scale_from_pitch_turns_pixels_into_um():
    pos = grid("hex", pitch=138.0)
    assert scale_from_pitch(pos, 100) == pytest.approx(100 / 138)
    check_um(pos * scale_from_pitch(pos, 100))


@pytest.mark.parametrize(
    ("pos", "pitch", "message"),
    [
        (tissue(), 100, "500 irregular points.*Pass mpp="),
        (grid("hex"), 0, "positive, got 0"),
        (grid("hex"), np.nan, "positive, got nan"),
    ],
)
def test_scale_from_pitch_refuses_what_has_no_pitch(pos, pitch, message):
    with pytest.raises(ValueError, match=message):
        scale_from_pitch(pos, pitch)


REAL = {
    **{f"her2st/{s}": (200, "square") for s in "A1 A2 C1 C2 C3 C4 C5 D1 E1".split()},
    "dlpfc_151510/151510": (100, "hex"),
    "st_mob/MOB1": (200, "square"),
    "st_mob/MOB2": (200, "square"),
}


def positions(path):
    return np.asarray(anndata.read_h5ad(path).obsm["spatial"], dtype=np.float64)


@pytest.mark.parametrize("name", REAL)
def test_real_arrays_in_pixels_are_caught_and_their_pitch_mends_them(real_data, name):
    pitch, kind = REAL[name]
    pos = positions(real_data / f"{name}.h5ad")
    with pytest.raises(ValueError, match=f"{kind} lattice .*Pixels.*pitch_um={pitch}"):
        check_um(pos)
    check_um(pos * scale_from_pitch(pos, pitch))


def test_starmap_in_pixels_is_caught(real_data):
    pos = positions(real_data / "starmap_by3/starmap_by3.h5ad")
    with pytest.raises(ValueError, match="neighbour distance is 144.8.*Pixels.*mpp="):
        check_um(pos)


@pytest.mark.parametrize(
    "name", ["merfish_mpoa/merfish_mpoa", "merfish_visp/merfish_visp", "xenium_breast_crop/cells"]
)
def test_real_cells_in_um_pass(real_data, name):
    check_um(positions(real_data / f"{name}.h5ad"))


def test_pitch_agrees_with_the_array_coordinates_of_a_registered_array(real_data):
    adata = anndata.read_h5ad(real_data / "her2st/A1.h5ad")
    sites = np.c_[adata.obsm["spatial_array"], np.ones(adata.n_obs)]
    fit = np.linalg.lstsq(sites, adata.obsm["spatial"], rcond=None)[0][:2]
    found = lattice(adata.obsm["spatial"])
    assert found is not None
    assert found.pitch == pytest.approx(np.sqrt(abs(np.linalg.det(fit))), rel=0.01)


def test_the_scale_of_turned_and_mirrored_places_is_found_and_of_other_places_none():
    a = np.random.default_rng(0).uniform(0, 9000, (30, 2))
    turn = np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    for m in (np.eye(2), turn, np.diag([1, -1]), np.array([[0, -1], [1, 0]])):
        assert similarity_scale(a, 0.12 * a @ m + 7) == pytest.approx(0.12)
    assert similarity_scale(a, a * (0.12, 0.2)) is None
    assert similarity_scale(a, np.random.default_rng(1).uniform(0, 9000, (30, 2))) is None
    assert similarity_scale(a[:1], a[:1]) is None
    line = a * (1, 0)
    assert similarity_scale(line, 0.5 * line[:, ::-1]) == pytest.approx(0.5)


def test_a_scale_that_positions_speak_against_is_refused_with_its_source():
    rng = np.random.default_rng(0)
    cells = rng.uniform(0, 2000, (400, 2))  # pixels
    check_scale(0.2, "a file", pixels=cells)
    for mpp, message in (
        (0.001, "0.05–20 µm per pixel, got 0.001 from a file"),
        (30.0, "0.05–20 µm per pixel, got 30 from a file"),
        (5.0, "with 5 µm per pixel from a file the median nearest-neighbour distance is"),
    ):
        with pytest.raises(ValueError, match=message):
            check_scale(mpp, "a file", pixels=cells)
    sites = np.stack(np.mgrid[:9, :9], -1).reshape(-1, 2) * 100.0
    check_scale(0.5, "a file", pixels=sites / 0.52 + rng.normal(0, 1, sites.shape), sites_um=sites)
    with pytest.raises(ValueError, match="fit 0.5 µm per pixel from a file, but the array gives 1"):
        check_scale(0.5, "a file", pixels=sites, sites_um=sites)
    with pytest.raises(ValueError, match="stretched or out of place"):
        check_scale(0.5, "a file", pixels=sites * (2, 1), sites_um=sites)
