"""Files that a user put beside those of a vendor, and that another vendor could have written."""

import shutil

import numpy as np
import pytest
from fuzzing import vendors
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import spatiagraph as sg
from spatiagraph.data.places import check_place
from spatiagraph.data.read.tables import read_table

XENIUM = "transcript_id,cell_id,feature_name,x_location,y_location,qv\n1,c,A,1,1,40\n"
MATRIX = {
    "matrix.mtx": "%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 1 5\n2 2 6\n",
    "barcodes.tsv": "a\nb\n",
    "features.tsv": "E1\tA\tGene Expression\nE2\tB\tGene Expression\n",
    "cells.csv": "cell_id,x_centroid,y_centroid\na,0,0\nb,9,9\n",
}
FOREIGN = {
    "molecules as of Xenium": {"transcripts.csv": XENIUM},
    "no molecules": {"transcripts.csv": ""},
    "counts exported": MATRIX,
    "segmented again": {"proseg_transcripts.csv": XENIUM, "baysor_transcripts.csv": XENIUM},
    "two matrices": {f"{k}_{n}": v for k in ("raw", "filtered") for n, v in MATRIX.items()},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name in ("merscope", "cosmx", "xenium"):
        made[name] = tmp_path_factory.mktemp(name) / "slide"
        getattr(vendors, name)(made[name])
    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("vendor", ["merscope", "cosmx", "xenium"])
@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_files_of_others_change_nothing(folders, tmp_path, vendor, files):
    folder = shutil.copytree(folders[vendor], tmp_path / "slide")
    alone = sg.read(folders[vendor], image=False)
    for name, text in files.items():
        if not (folder / name).exists():
            (folder / name).write_text(text)
    check_place(folder)
    slide = sg.read(folder, image=False)
    assert slide.counts.shape == alone.counts.shape
    assert (slide.counts != alone.counts).nnz == 0
    np.testing.assert_array_equal(slide.pos, alone.pos)


def test_four_loose_files_are_no_xenium(tmp_path):
    for name, text in MATRIX.items():
        (tmp_path / name).write_text(text)
    for door in (check_place, sg.read):
        with pytest.raises(ValueError, match="It has counts and no places of cells"):
            door(tmp_path)


@pytest.mark.parametrize("places", [1, 2, 3])
def test_points_in_one_column_say_nothing_of_the_commas_of_another(tmp_path, places):
    rng = np.random.default_rng(0)
    x, value = rng.uniform(100, 300, 40), rng.uniform(0.1, 9, 40)
    rows = [f"{a:.{places}f};{f'{b:.2f}'.replace('.', ',')};{1 + i % 2}.{i % 3}" for i, (a, b) in
            enumerate(zip(x, value, strict=True))]  # fmt: skip
    (tmp_path / "a.csv").write_text("\n".join(["x;CD3;cluster", *rows]))
    table = read_table(tmp_path / "a.csv")
    np.testing.assert_allclose(table["x"], x, atol=0.51 * 10.0**-places)
    np.testing.assert_allclose(table["CD3"], value, atol=0.0051)
    assert table["cluster"].dtype.kind == "f"


def test_broken_exif_says_nothing_of_whole_pixels(tmp_path):
    Image.new("L", (8, 8), 7).save(
        tmp_path / "a.png", exif=b"Exif\0\0garbagegarbage", pnginfo=PngInfo()
    )
    image = sg.SlideImage.open(tmp_path / "a.png", mpp=1.0)
    assert image.num_channels == 1


def test_a_scale_that_was_said_once_is_not_said_again(tmp_path, recwarn):
    import tifffile

    slide = sg.make_tissue(100, num_genes=20, image=None, seed=0)
    side = int(slide.pos.max() + 50)
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        np.full((side, side), 9, np.uint8),
        metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    with pytest.warns(
        UserWarning, match=r"0\.5 µm, and they are taken to be 1 µm: pass image_mpp=0\.5"
    ):
        read = sg.read(slide.adata, image=tmp_path / "a.ome.tif", image_mpp=1.0)
    sg.write(read, tmp_path / "b.h5ad")
    recwarn.clear()
    again = sg.read(tmp_path / "b.h5ad")
    assert again.image is not None
    assert again.image.mpp == 1.0
    assert not [w for w in recwarn if "says that pixels" in str(w.message)]
