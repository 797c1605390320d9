"""``spatiagraph colocalize``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spatiagraph.cli.options import seed_option


class Mode(StrEnum):
    """Groups of molecules in which genes lie together."""

    louvain = "louvain"
    neighborhood = "neighborhood"


def colocalize(
    molecules: Annotated[
        Path,
        typer.Argument(
            help="Molecules with their cells, in µm: .parquet, .csv or .csv.gz with the columns of "
            "Xenium, MERSCOPE, CosMx, or x, y, gene and cell_id (or cell, of Baysor); a "
            "SpatialData .zarr; or the folder of such a machine."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the tables.")],
    cells: Annotated[
        Path | None, typer.Option(help="Cells (.h5ad) of the same names, for --groups.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Column of obs: also rank the pairs of each group.")
    ] = None,
    radius_um: Annotated[
        float, typer.Option(help="Molecules at most this far apart are joined.", min=0.01)
    ] = 5.0,
    copies: Annotated[
        int, typer.Option(help="Molecules of either gene that lie together, at least.", min=1)
    ] = 3,
    mode: Annotated[
        Mode, typer.Option(help="Communities of molecules, or the ball around each.")
    ] = Mode.louvain,
    min_qv: Annotated[float, typer.Option(help="Least quality of a molecule.")] = 20.0,
    min_counts: Annotated[int, typer.Option(help="Least molecules of a cell.", min=1)] = 30,
    min_genes: Annotated[int, typer.Option(help="Least genes of a cell.", min=1)] = 10,
    outlines: Annotated[
        Path | None,
        typer.Option(
            help="Outlines of the cells, such as cell_boundaries.parquet of Xenium: leave out "
            "molecules that lie outside of their cell or too near its edge."
        ),
    ] = None,
    margin_um: Annotated[
        float, typer.Option(help="How near to its outline is too near.", min=0)
    ] = 1.0,
    mpp: Annotated[
        float | None, typer.Option(help="µm per unit of the coordinates, if not µm: CosMx.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of each cell from each null.", min=1)] = 20,
    jitter_um: Annotated[
        float, typer.Option(help="How far the second null displaces molecules.", min=0.01)
    ] = 5.0,
    min_support: Annotated[
        int, typer.Option(help="Cells that could have a pair for it to be tested.", min=1)
    ] = 10,
    seed: Annotated[int, seed_option("Same seed, same pairs.")] = 0,
) -> None:
    """Find pairs of genes whose molecules lie together inside of cells, more than by chance.

    Writes molecules.parquet (filtered, sorted by cell), pairs.h5ad (cells × pairs) and pairs.csv:
    each pair with its cells, those expected if molecules were shuffled or displaced within the
    cell, and corrected p-values. The table may be longer than memory.
    """
    from spatiagraph._files import check_output_folder
    from spatiagraph.cli.console import print_table, say
    from spatiagraph.cli.early import check_slide_file

    if (cells is None) != (groups is None):
        raise ValueError("Expected --cells and --groups together")
    if cells is not None:
        check_slide_file(cells, {"--groups": groups})
    check_output_folder(out)
    import pandas as pd

    from spatiagraph._tables import write_csv
    from spatiagraph.data.colocalization import (
        Colocalization,
        SortedMolecules,
        differential_gene_pairs,
        find_gene_pairs,
        sort_molecules,
    )
    from spatiagraph.data.h5ad_file import write_h5ad
    from spatiagraph.data.molecules import CellOutlines, find_molecules
    from spatiagraph.data.read.h5ad import read_file

    path, sorted_path = find_molecules(molecules), out / "molecules.parquet"
    obs = None if cells is None else read_file(cells).obs
    if obs is not None and not obs.index.is_unique:
        raise ValueError(
            f"Expected every cell of {cells} once, for --groups, got "
            f"{obs.index[obs.index.duplicated()][0]!r} again: rename the cells"
        )
    scale = 1.0 if mpp is None else mpp
    near = None if outlines is None else CellOutlines.read(outlines, margin_um, mpp=scale)
    removed = sort_molecules(
        path,
        sorted_path,
        min_qv=min_qv,
        min_counts=min_counts,
        min_genes=min_genes,
        outlines=near,
        mpp=mpp,
    )
    print_table(removed, "removed by each step")
    table = SortedMolecules(sorted_path)
    say(
        f"{table.num_molecules:,} molecules of {len(table.genes)} genes in "
        f"{table.num_cells:,} cells"
    )
    if obs is not None and not obs.index.isin(table.cell_ids).any():
        raise ValueError(
            f"Expected the cells of {cells} among those of the molecules, for --groups, got none: "
            f"{[*obs.index[:2]]} there, {[*table.cell_ids[:2]]} here. Name them alike"
        )
    found = find_gene_pairs(
        table,
        Colocalization(radius_um, copies, mode.value, seed=seed),
        num_draws=draws,
        jitter_um=jitter_um,
        min_support=min_support,
        progress=True,
    )
    write_csv(found.table, out / "pairs.csv")
    adata = found.to_adata()
    if obs is not None and groups is not None:
        adata.obs = obs.reindex(adata.obs_names)
        ranked = differential_gene_pairs(adata, groups)
        write_csv(ranked, out / "by_group.csv")
        best = ranked.groupby("group", observed=True).head(3)
        print_table(best.set_index("group")[["pair", "share", "share_rest", "q"]], "\nby group")
    write_h5ad(adata, out / "pairs.h5ad")
    tested, sure = found.table, found.significant()
    shown = pd.concat([sure, tested.drop(sure.index)]).head(10)
    columns = ["cells", "expected_shuffle", "q_shuffle", "expected_jitter", "q_jitter"]
    names = shown["gene_a"] + "|" + shown["gene_b"]
    print_table(shown[columns].set_axis(names), "\nthe surest pairs")
    say(f"{len(sure)} of {len(tested):,} pairs beat both nulls at q < 0.05: {out / 'pairs.csv'}")
