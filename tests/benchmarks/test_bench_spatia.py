"""SPATIA (``tiny``) on real slides beside baselines, on the same splits: six tables.

    pytest -m benchmark -s tests/benchmarks/test_bench_spatia.py

Needs SPATIAGRAPH_DATA. Twenty minutes on two cores; SEEDS in the environment, 2 by default.
"""

import os

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import spatiagraph as sg
from spatiagraph.data.recipe import Crop
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.evaluate import (
    EntrySplit,
    ImputationSplit,
    color_texture,
    image_baselines,
    log_normalize,
    neighbor_mean,
    pca,
    random_folds,
    ridge_entries_on,
    ridge_map,
    ridge_on,
    score_entry_imputation,
    score_image_to_genes,
    score_imputation,
    score_probe,
    score_retrieval,
)
from spatiagraph.inference import embed_data, impute, project_modalities
from spatiagraph.models import Spatia
from spatiagraph.tasks import SpatiaPretraining, SpatiaWeights
from spatiagraph.training import fit

pytestmark = pytest.mark.benchmark

SEEDS = range(int(os.environ.get("SEEDS", "2")))
RUN = {"accelerator": "cpu", "progress": False}
NONE = dict.fromkeys(SpatiaWeights.__dataclass_fields__, 0.0)
IMAGES_ONLY = {**NONE, "masked_image": 1.0, "masked_cells": 0.5, "masked_niches": 0.5}


def show(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean over seeds; the deviation over seeds of those that have any."""
    every = pd.concat(tables)
    mean = every.groupby(level=0, sort=False).mean()
    deviation = every.groupby(level=0, sort=False).std(ddof=0).add_suffix("_seeds")
    table = mean.join(deviation)
    print("\n" + table.round(3).to_string(), flush=True)
    return table


def part(slide: sg.Slide, counts, rows: np.ndarray, columns: np.ndarray) -> sg.Slide:
    """Some cells with some genes."""
    adata = anndata.AnnData(
        counts,
        obs=pd.DataFrame(index=slide.adata.obs_names[rows]),
        var=pd.DataFrame(index=np.array(slide.symbols)[columns]),
    )
    adata.obsm["spatial"] = slide.pos[rows]
    return sg.Slide(adata, slide.image, slide_id=slide.slide_id, assume_um=True)


def of_all_cells(found: np.ndarray, split: ImputationSplit) -> np.ndarray:
    """Rows of all cells; of one in which no visible gene was seen nothing is known but the mean."""
    result = np.tile(found.mean(0), (split.counts.shape[0], 1))
    result[split.counts.getnnz(axis=1) > 0] = found
    return result


def test_imputation_of_hidden_genes(real_data):
    folder = real_data / "xenium_breast_crop"
    slide = sg.read(folder / "cells.h5ad", image=folder / "morphology_mip.tif")
    tables = []
    for seed in SEEDS:
        trained: dict[int, tuple[Spatia, sg.Slide]] = {}

        def model_of(split: ImputationSplit, seed=seed, trained=trained) -> tuple[Spatia, sg.Slide]:
            """Trained on the whole panel of training cells; reads visible genes of all cells."""
            if split.number not in trained:
                genes = np.arange(slide.num_genes)
                known = part(slide, split.train_counts, split.train, genes)
                model = Spatia.for_slides([known], num_genes=None, seed=seed)
                fit(model, [known], seed=seed, **RUN)
                cells = np.flatnonzero(split.counts.getnnz(axis=1))
                seen = part(slide, split.counts[cells], cells, split.visible)
                trained[split.number] = model, seen
            return trained[split.number]

        def direct(split: ImputationSplit, model_of=model_of) -> np.ndarray:
            model, seen = model_of(split)
            imputed = impute(model, seen, depth=split.depth)
            hidden = imputed[np.array(slide.symbols)[split.hidden]].to_numpy()
            return of_all_cells(hidden, split)[split.test]

        def embedding(split: ImputationSplit, model_of=model_of) -> np.ndarray:
            model, seen = model_of(split)
            return of_all_cells(sg.embed(model, seen, progress=False).obsm["X_spatia"], split)

        methods = {
            "spatia, its own decoder": direct,
            "ridge on spatia": ridge_on(embedding),
            "ridge on genes and spatia": ridge_on(embedding, with_genes=True),
        }
        table = score_imputation(methods, slide.counts, slide.pos)
        tables.append(table[["pearson_mean", "pearson_mean_std", "rmse"]])
    table = show(tables)
    assert table.loc["ridge on spatia", "pearson_mean"] > 0.3


def test_annotation(real_data):
    slide = sg.read(real_data / "starmap_by3" / "starmap_by3.h5ad", mpp=0.1)
    labels, ignore = slide.adata.obs["celltype"], ["NA", "nan"]
    log = log_normalize(slide.counts).toarray()
    components = pca(slide.counts, 50)
    around = np.hstack([components, neighbor_mean(components, slide.pos, 15)])
    tables = []
    for seed in SEEDS:
        model = Spatia.for_slides([slide], num_genes=None, seed=seed)
        start = sg.embed(model, slide, progress=False).obsm["X_spatia"].copy()
        fit(model, [slide], seed=seed, **RUN)
        adata = sg.embed(model, slide, progress=False)
        embeddings = {
            "spatia": adata.obsm["X_spatia"],
            "spatia, cell and niche": np.hstack(
                [adata.obsm["X_spatia"], adata.obsm["X_spatia_niche"]]
            ),
            "spatia before training": start,
            "genes": log,
            "pca50": components,
            "pca50 and neighbours": around,
        }
        blocks, random = (
            score_probe(embeddings, labels, folds, ignore=ignore)["macro_F1"]
            for folds in (
                spatial_blocks(slide.pos, seed=seed),
                random_folds(labels, seed=seed, ignore=ignore),
            )
        )
        tables.append(pd.DataFrame({"blocks": blocks, "random": random}))
    table = show(tables)
    assert table.loc["spatia", "blocks"] > 0.5


def test_nuclei_to_genes(real_data):
    folder = real_data / "xenium_breast_crop"
    slide = sg.read(folder / "cells.h5ad", image=folder / "morphology_mip.tif")
    window_um = 112 * slide.image.mpp
    crops, _ = slide.image.crops(slide.pos, window_um, 112)
    colors = color_texture(crops)
    tables = []
    for seed in SEEDS:
        recipe = Spatia.default_recipe([slide], crops=(Crop(window_um, 64),))
        model = Spatia.for_slides([slide], recipe=recipe, genes=False, seed=seed)
        task = SpatiaPretraining(model, SpatiaWeights(**IMAGES_ONLY), seed=seed)
        fit(model, [slide], task=task, seed=seed, **RUN)
        adata = sg.embed(model, slide, progress=False)
        features = {
            "spatia": adata.obsm["X_spatia"],
            "spatia, cell and niche": np.hstack(
                [adata.obsm["X_spatia"], adata.obsm["X_spatia_niche"]]
            ),
            "texture": colors,
            "texture and neighbours": np.hstack([colors, neighbor_mean(colors, slide.pos, 15)]),
            **{k: v for k, v in image_baselines(crops, seed=seed).items() if k.startswith("res")},
        }
        folds = spatial_blocks(slide.pos, seed=0)
        table = score_image_to_genes(features, slide.counts, folds, genes="all", target=None)
        tables.append(table[["pearson_mean", "pearson_mean_std", "pearson_given_depth", "mse"]])
    table = show(tables)
    assert table.loc["spatia", "pearson_mean"] > 0.1


def test_images_to_genes(real_data):
    folder, names = real_data / "her2st", ("C2", "C3", "C4", "C5")
    slides = [
        sg.read(folder / f"{n}.h5ad", image=folder / f"{n}_HE.jpg", pitch_um=200) for n in names
    ]
    symbols = [pd.Index(slide.symbols) for slide in slides]
    other = sg.read(folder / "A1.h5ad", image=False, pitch_um=200).symbols
    genes = sorted(set(other).intersection(*symbols))
    counts = sparse.vstack(
        [s.counts[:, i.get_indexer(genes)] for s, i in zip(slides, symbols, strict=True)]
    ).tocsr()
    fold = np.repeat(np.arange(4), [slide.num_cells for slide in slides])
    crops = [slide.image.crops(slide.pos, 160, 224)[0] for slide in slides]
    colors = [color_texture(c) for c in crops]
    around = [neighbor_mean(c, s.pos, 8) for c, s in zip(colors, slides, strict=True)]
    tables = []
    for seed in SEEDS:
        # images of all sections, no gene
        model = Spatia.for_slides(
            slides,
            recipe=Spatia.default_recipe(slides, crops=(Crop(160.0, 64),)),
            genes=False,
            seed=seed,
        )
        task = SpatiaPretraining(model, SpatiaWeights(**IMAGES_ONLY), seed=seed)
        fit(model, slides, task=task, seed=seed, **RUN)
        found = [embed_data(model, model.recipe(slide)) for slide in slides]
        cell, niche = (np.concatenate([z[k] for z in found]) for k in ("cell", "niche"))
        features = {
            "spatia": cell,
            "spatia, cell and niche": np.hstack([cell, niche]),
            "colours": np.concatenate(colors),
            "colours and neighbours": np.hstack([np.concatenate(colors), np.concatenate(around)]),
        }
        both = []
        for chosen in ("var250", "mean250"):
            table = score_image_to_genes(features, counts, fold, genes=chosen)
            columns = ["pearson_mean", "pearson_mean_std", "pearson_given_depth"]
            both.append(table[columns].add_prefix(f"{chosen}_"))
        tables.append(pd.concat(both, axis=1))
    table = show(tables)
    assert table.loc["spatia", "var250_pearson_mean"] > 0.25


def test_imputation_of_single_values(real_data):
    """A fifth of the genes of each cell hidden, each cell its own; nothing hidden is learned of."""
    slide = sg.read(real_data / "xenium_breast_crop" / "cells.h5ad", image=False)
    tables = []
    for seed in SEEDS:

        def read(split: EntrySplit, steps: int, seed=seed) -> tuple[np.ndarray, np.ndarray]:
            """Embeddings, and shares of genes by the decoder."""
            genes = [f"g{i}" for i in range(split.hidden.shape[1])]
            adata = anndata.AnnData(split.counts, var=pd.DataFrame(index=genes))
            adata.obsm["spatial"] = split.pos
            known = sg.Slide(adata, slide_id="seen", assume_um=True, check=False)
            model = Spatia.for_slides([known], num_genes=None, seed=seed)
            if steps:
                fit(model, [known], max_steps=steps, seed=seed, **RUN)
            order = pd.Index(model.panel.symbols).get_indexer(genes)
            data = model.recipe(known)
            data.x = data.x.to_dense()
            visible = torch.zeros(data.x.shape, dtype=torch.bool)
            visible[:, order] = torch.from_numpy(~split.hidden)
            with torch.no_grad():
                cell = model.eval()(*model.inputs(data, visible=visible)).cell
                every = torch.ones_like(visible)
                share = model.head(cell, torch.ones(len(cell)), every).log_mu.exp()
            return cell.numpy(), share.numpy()[:, order]

        def own(split: EntrySplit, read=read) -> np.ndarray:
            return np.log1p(split.depth * read(split, 200)[1])

        methods = {
            "spatia, its own decoder": own,
            "ridge on spatia": ridge_entries_on(lambda split, read=read: read(split, 200)[0]),
            "ridge on spatia before training": ridge_entries_on(
                lambda split, read=read: read(split, 0)[0]
            ),
        }
        table = score_entry_imputation(methods, slide.counts, slide.pos, num_repeats=2)
        tables.append(table[["pearson_mean", "pearson_mean_std", "rmse"]])
    table = show(tables)
    assert table.loc["ridge on spatia", "pearson_mean"] > 0.2


def test_images_find_genes(real_data):
    """In blocks that were held out of training, each by a model of the others."""
    folder = real_data / "xenium_breast_crop"
    slide = sg.read(folder / "cells.h5ad", image=folder / "morphology_mip.tif")
    folds = spatial_blocks(slide.pos, num_folds=3, seed=0)
    crops, _ = slide.image.crops(slide.pos, 112 * slide.image.mpp, 112)
    components = pca(slide.counts, 30)
    colors = color_texture(crops)
    pairs = {"ridge from texture": (ridge_map(colors, components, folds), components)}
    tables = []
    for seed in SEEDS:
        found: dict[str, list[np.ndarray]] = {}
        for fold in np.unique(folds):
            train = part(slide, slide.counts[folds != fold], np.flatnonzero(folds != fold),
                         np.arange(slide.num_genes))  # fmt: skip
            recipe = Spatia.default_recipe(
                [train], num_genes=None, crops=(Crop(112 * slide.image.mpp, 64),)
            )
            model = Spatia.for_slides([train], recipe=recipe, seed=seed)
            for when in ("before training", "trained"):
                if when == "trained":
                    fit(model, [train], seed=seed, **RUN)
                sides = found.setdefault(when, [])
                if not sides:
                    sides += [np.full((slide.num_cells, 1), np.nan)] * 2
                for i, z in enumerate(project_modalities(model, slide)):
                    if sides[i].shape[1] != z.shape[1]:
                        sides[i] = np.full(z.shape, np.nan, dtype=z.dtype)
                    sides[i][folds == fold] = z[folds == fold]
        for when, (image, genes) in found.items():
            pairs[f"spatia, {when}"] = image, genes
        seen = np.isfinite(np.hstack([z for pair in pairs.values() for z in pair])).all(axis=1)
        table = score_retrieval(pairs, np.where(seen, folds, -1))
        table = table.set_index("direction", append=True)
        table.index = [" / ".join(row) for row in table.index]
        tables.append(table[["recall@1", "recall@10", "median_rank_share"]])
    show(tables)
