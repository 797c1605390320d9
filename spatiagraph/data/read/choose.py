"""Parts of an AnnData that are chosen by name before it is read: values, positions, sections."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from anndata import AnnData

from spatiagraph import keys
from spatiagraph.data.axes import same_places
from spatiagraph.data.checks import as_positions, name_rows, nearest
from spatiagraph.data.counts import choose_counts, is_counts, named_layers, shallow_copy
from spatiagraph.data.read.features import protein_features, type_features
from spatiagraph.data.read.parts import Options, Parts, placed_only
from spatiagraph.data.scale import libraries


def choose(adata: AnnData, options: Options) -> tuple[AnnData, list[str]]:
    """Values and coordinates that the options select, in the slots that readers use.

    Args:
        adata: Cells, in memory; not changed.
        options: ``counts_layer``, ``kind``, ``x_key``, ``y_key``, ``drop_unplaced``, ….

    Returns:
        The cells, and what the user should hear of.

    Raises:
        ValueError: A name is not there, or contradicts another.
    """
    adata, heard = shallow_copy(adata), []
    if options.counts_layer is not None:
        adata = choose_counts(adata, options.counts_layer)
    elif options.kind == "genes":
        heard += _unread_counts(adata)
    if options.markers is not None:
        adata = _only(adata, list(options.markers))
    if options.kind == "protein":
        adata, warning = protein_features(adata, options.transform, options.cofactor)
        heard += [] if warning is None else [warning]
    elif options.kind == "types":
        adata = type_features(adata, options.type_key)
    if options.x_key is not None or options.y_key is not None:
        adata.obsm[options.spatial_key] = _columns(adata, options)
    if options.swap_xy:
        if options.spatial_key not in adata.obsm:
            raise ValueError(
                f"Expected coordinates in obsm[{options.spatial_key!r}] for swap_xy=True, got none"
            )
        key = options.spatial_key
        adata.obsm[key] = as_positions(adata.obsm[key], f"obsm[{key!r}]")[:, ::-1].copy()
    return placed_only(adata, options, options.spatial_key), heard


def split_sections(adata: AnnData, sample_key: str) -> Iterator[tuple[str, AnnData]]:
    """The sections of a table, by a column of ``obs``, each with its own entry of the images.

    Args:
        adata: Cells, in memory.
        sample_key: The column; values in order of their first cell.

    Raises:
        ValueError: There is no such column, or cells have no value in it.
    """
    code, names = sections_of(adata.obs, sample_key)
    for number, name in enumerate(names):
        part = adata[code == number].copy()
        if name in libraries(part):
            part.uns["spatial"] = {name: part.uns["spatial"][name]}
        yield name, part


def split_parts(parts: Parts, sample_key: str) -> Iterator[tuple[str, Parts]]:
    """The sections of a slide that was read as one, by a column of ``obs``.

    Args:
        parts: Pieces of the slide, in µm; all sections keep the image.
        sample_key: The column.

    Raises:
        ValueError: As for :func:`split_sections`.
    """
    code, names = sections_of(parts.adata.obs, sample_key)
    for number, name in enumerate(names):
        adata, molecules = parts.adata[code == number].copy(), parts.transcripts
        if molecules is not None and "cell_id" in molecules:
            molecules = molecules[molecules["cell_id"].isin(adata.obs_names)]
        yield (
            name,
            Parts(
                adata,
                parts.image,
                molecules,
                outlines_file=parts.outlines_file,
                known_um=parts.known_um,
                notes=dict(parts.notes),
                warnings=parts.warnings if number == 0 else [],
                donor=parts.donor,
                expression=parts.expression,
            ),
        )


def sections_of(obs: pd.DataFrame, sample_key: str) -> tuple[np.ndarray, list[str]]:
    """Number of the section of each cell, ``[N]``, and the names of the sections.

    Raises:
        ValueError: There is no such column, or cells have no value in it.
    """
    columns = [str(c) for c in obs.columns]
    if sample_key not in columns:
        raise ValueError(
            f"Expected sections in obs[{sample_key!r}], got none. {nearest(sample_key, columns)}"
        )
    code, names = pd.factorize(obs[sample_key])
    rows = np.flatnonzero(code < 0)
    if len(rows):
        raise ValueError(
            f"Expected a section for each cell in obs[{sample_key!r}], got none for {len(rows)} of "
            f"{len(obs)}: {name_rows(obs.index, rows)}. Drop those cells"
        )
    return code, [str(name) for name in names]


def _only(adata: AnnData, markers: list[str]) -> AnnData:
    """The features that were asked for, in this order."""
    names = adata.var_names.astype(str)
    if lost := [name for name in markers if name not in names]:
        raise ValueError(
            f"Expected features {', '.join(map(repr, lost[:8]))} of markers among "
            f"{adata.n_vars}, got none called so. {nearest(lost[0], names.tolist())}"
        )
    return adata[:, names.get_indexer(pd.Index(markers))].copy()


def _unread_counts(adata: AnnData) -> list[str]:
    """A word on layers that are called raw and differ from the counts that are read."""
    if keys.COUNTS in adata.layers or adata.X is None or not is_counts(adata.X):
        return []
    other = [
        name
        for name, values in named_layers(adata).items()
        if "raw" in str(name).lower() and is_counts(values) and values.sum() != adata.X.sum()
    ]
    return [
        f"X is read, and layers[{name!r}] holds other counts: pass counts_layer={name!r}, or "
        "counts_layer='X' to confirm"
        for name in other[:1]
    ]


def _columns(adata: AnnData, options: Options) -> np.ndarray:
    """Coordinates in two columns of ``obs``, ``[N, 2]``."""
    if options.x_key is None or options.y_key is None:
        raise ValueError(
            f"Expected both x_key and y_key, got x_key={options.x_key!r}, y_key={options.y_key!r}"
        )
    columns = [str(c) for c in adata.obs.columns]
    if options.x_key == options.y_key:
        raise ValueError(f"Expected two columns, got {options.x_key!r} for both x_key and y_key")
    for key in (options.x_key, options.y_key):
        if key not in columns:
            raise ValueError(
                f"Expected coordinates in obs[{key!r}], got none. {nearest(key, columns)}"
            )
    pos = np.stack([_numbers(adata.obs[k], k) for k in (options.x_key, options.y_key)], axis=1)
    other = np.asarray(adata.obsm.get(keys.SPATIAL, np.empty((0, 2))))
    if other.shape == pos.shape and other.dtype.kind in "iuf":
        if same_places(other[:, ::-1], pos) and not same_places(other, pos):
            raise ValueError(
                f"Expected x in obs[{options.x_key!r}] and y in obs[{options.y_key!r}], but "
                f"obsm[{keys.SPATIAL!r}] has the same two the other way around: one of both is "
                f"wrong. Pass x_key={options.y_key!r} and y_key={options.x_key!r}, or drop "
                f"obsm[{keys.SPATIAL!r}] if the columns are right"
            )
    return pos


def _numbers(values: pd.Series, key: str) -> np.ndarray:
    """A column as numbers, also of text or categories that are such, ``[N]``."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    if not pd.api.types.is_numeric_dtype(values):
        found = pd.to_numeric(values, errors="coerce")
        bad = np.flatnonzero(found.isna() & values.notna())
        if len(bad):
            raise ValueError(
                f"Expected numbers in obs[{key!r}], got {values.iloc[bad[0]]!r} in "
                f"{name_rows(values.index, bad[:1])}"
            )
        values = found
    return values.to_numpy(np.float64, na_value=np.nan)
