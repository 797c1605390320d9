"""One whole, small file or folder of each format that the product reads or writes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch
from PIL import Image
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

from fuzzing.vendors import VENDORS
from spatiagraph.cli import app
from spatiagraph.data import GenePanel, make_tissue, write
from spatiagraph.models import ImageGenerator
from spatiagraph.models.generator import TINY
from spatiagraph.retrieval import NicheIndex

CELLS, GENES = 60, 12
FIT = ("--epochs", "1", "--channels", "8", "--genes", "12", "--accelerator", "cpu", "--no-image")
SQUARE = [[0, 0], [60, 0], [60, 60], [0, 60], [0, 0]]


def command(*arguments):
    """What the command line does with some arguments."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def make_bases(folder):
    """Write every base into an empty folder; they are not changed afterwards."""
    folder = Path(folder)
    slide = make_tissue(CELLS, num_genes=GENES, image="he", seed=0)
    adata = slide.adata
    adata.obs["state"] = pd.Categorical(np.where(np.arange(CELLS) % 2, "A", "B"))
    adata.obs["area"] = np.linspace(10, 90, CELLS)
    adata.obs["edge"] = np.arange(CELLS) % 3 == 0
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(CELLS, 4)).astype(np.float32)
    adata.obsp["spatial_connectivities"] = csr_matrix(np.eye(CELLS, k=1, dtype=np.float32))
    adata.write_h5ad(folder / "slide.h5ad")
    write(slide, folder / "slide.zarr")
    _write_images(slide, folder)
    for name, write_vendor in VENDORS.items():
        write_vendor(folder / name)
    for arguments in (
        ["fit", folder / "slide.h5ad", "--out", folder / "run", *FIT],
        ["embed", folder / "run", folder / "slide.h5ad", "--out", folder / "embedded.h5ad"],
    ):
        done = command(*arguments)
        assert done.exit_code == 0, done.output
    shutil.copytree(folder / "run" / "model", folder / "model")
    shutil.copytree(folder / "run", folder / "stopped")
    shutil.rmtree(folder / "stopped" / "model")
    _write_index(adata, folder / "index")
    _write_generator(slide, folder / "generator")
    GenePanel.from_slides([slide]).to_json(folder / "panel.json")
    shape = {"type": "Polygon", "coordinates": [SQUARE]}
    feature = {"type": "Feature", "geometry": shape, "properties": {"name": "edge"}}
    region = {"type": "FeatureCollection", "features": [feature]}
    (folder / "region.geojson").write_text(json.dumps(region))
    pd.DataFrame(SQUARE, columns=["x", "y"]).to_csv(folder / "region.csv", index=False)


def _write_images(slide, folder):
    pixels = slide.image.thumbnail(10_000)[0]
    image = Image.fromarray(pixels)
    image.save(folder / "image.png")
    image.save(folder / "image.jpg", quality=95)
    tifffile.imwrite(folder / "image.tif", pixels, photometric="rgb")
    with tifffile.TiffWriter(folder / "image.ome.tif", ome=True) as file:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
        file.write(pixels, subifds=1, metadata={"axes": "YXS"}, **options)
        file.write(pixels[::2, ::2], subfiletype=1, **options)
    (folder / "image.json").write_text(
        json.dumps({"mpp": slide.image.mpp, "origin_um": list(slide.image.origin_um)})
    )


def _write_index(adata, path):
    obs = adata.obs.assign(slide_id=adata.obs["state"].astype(str))
    NicheIndex.build(adata.obsm["X_pca"], obs, calibrate="slide", kind="ivf", min_recall=0.1).save(
        path
    )


def _write_generator(slide, path):
    torch.manual_seed(0)
    size = replace(TINY, channels=8, condition_channels=8, head_channels=8)
    model = ImageGenerator.for_slides(
        [slide], size, context=["X_pca"], transitions=[("A", "B", "other")], states_key="state"
    )
    for parameter in model.unet.parameters():  # as training might leave them
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(path)
