"""Protocols of ``spatiagraph evaluate`` that are run when they are asked for."""

import numpy as np
import pandas as pd
from PIL import Image

from spatiagraph.data import make_tissue


def test_evaluate_imputes_genes_and_reads_images_when_asked(run, workplace, tmp_path):
    adata = make_tissue(100, num_genes=40).adata
    adata.write_h5ad(tmp_path / "slide.h5ad")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)).save(
        tmp_path / "image.png"
    )
    low = adata.obsm["spatial"].min(0)
    mpp = np.ptp(adata.obsm["spatial"], axis=0).max() / 390
    arguments = ["--image", tmp_path / "image.png", "--image-mpp", mpp, "--origin-um", *low]
    out = tmp_path / "scores.csv"
    for protocol in ("imputation", "image_to_genes"):
        arguments += ["--protocol", protocol]
    done = run("evaluate", tmp_path / "slide.h5ad", *arguments, "--out", out)
    assert done.exit_code == 0, done.output
    scores = pd.read_csv(out).set_index(["protocol", "embedding", "metric"])["value"]
    assert scores["imputation", "ridge", "pearson_mean"] > 0
    assert scores["image_to_genes", "depth_oracle", "pearson_given_depth"] == 0
    assert ("image_to_genes", "color_texture", "mse") in scores
    done = run("evaluate", tmp_path / "slide.h5ad", "--protocol", "retrieval", "--out", out)
    run.refused(done, "'image_features' or 'crops'")
