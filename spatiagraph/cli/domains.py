"""``spatiagraph domains``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spatiagraph.cli.options import SlideOptions, seed_option, with_slide_options

if TYPE_CHECKING:
    import pandas as pd

    from spatiagraph.data.slide import Slide


class Method(StrEnum):
    """Methods of :func:`spatiagraph.domains`."""

    consensus = "consensus"
    kmeans = "kmeans"
    gmm = "gmm"
    leiden = "leiden"


@with_slide_options
def domains(
    slides: Annotated[
        list[Path], typer.Argument(help="Slides, embedded or not; several are clustered as one.")
    ],
    slide_options: SlideOptions,
    k: Annotated[
        int | None, typer.Option(help="Number of domains; without it, only the curve.", min=1)
    ] = None,
    method: Annotated[
        Method, typer.Option(help="consensus, a vote over many clusterings, or one clusterer.")
    ] = Method.consensus,
    embedding: Annotated[
        str | None,
        typer.Option(
            help="What is clustered: a level of the model, a slot X_…, averaged_pca, log, sqrt; "
            "niches by default, and by the consensus genes too."
        ),
    ] = None,
    key: Annotated[str, typer.Option(help="Column of obs to write.")] = "domain",
    out: Annotated[
        Path | None,
        typer.Option(help="The .h5ad file to write; for several slides, a folder."),
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(help="Draw the stability of each number of domains, as .png.")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(help="Also write the domains as .csv of cell groups, for Xenium Explorer."),
    ] = None,
    max_k: Annotated[int, typer.Option(help="Largest number of the curve.", min=3)] = 10,
    regress_depth: Annotated[
        bool, typer.Option("--regress-depth", help="Take sequencing depth out first.")
    ] = False,
    keep_slide_means: Annotated[
        bool, typer.Option("--keep-slide-means", help="Leave differences of whole slides in.")
    ] = False,
    seed: Annotated[int, seed_option("Same seed, same domains.")] = 0,
) -> None:
    """Find domains of tissue: write them, and how sure each cell is, to .h5ad files.

    How many there are is yours to say, with --k. Without it the command prints how stable the
    domains are for every number up to --max-k, and stops: two or three are nearly always the most
    stable, a later peak is a hint.
    """
    import spatiagraph as sg
    from spatiagraph._files import check_output_folder
    from spatiagraph.cli.console import check_output_file, file_names, print_table, say
    from spatiagraph.data.cell_groups import write_cell_groups
    from spatiagraph.data.h5ad_file import write_h5ad
    from spatiagraph.inference.domains.write import check_key
    from spatiagraph.plot.domains import domain_curve as draw

    if (k is None) != (out is None):
        raise ValueError("Expected --k and --out together, or neither for the curve alone")
    if curve is not None:
        check_output_file(curve, ".png")
    if groups is not None:
        if k is None:
            raise ValueError("Expected --groups with --k and --out, got neither")
        check_output_file(groups, ".csv")
    if out is not None:
        one_file = out.suffix.lower() == ".h5ad"
        check_output_file(out, ".h5ad") if one_file else check_output_folder(out)
    sections = slide_options.read_all(slides, molecules=False)
    if out is not None and one_file != (len(sections) == 1):
        wanted = "a file that ends in .h5ad" if len(sections) == 1 else "a folder"
        raise ValueError(f"Expected {wanted} as --out for {len(sections)} slides, got {out.name}")
    if groups is not None and len(sections) > 1:
        raise ValueError(f"Expected --groups for one slide, got {len(sections)}")
    for section in sections if k is not None else ():
        check_key(section.adata, key)  # refused now, not after the curve
    options: dict[str, Any] = {
        "embedding": embedding,
        "center_slides": not keep_slide_means,
        "regress_depth": regress_depth,
        "seed": seed,
    }
    if k is None or curve is not None:
        table = sg.domain_curve(sections, range(2, max_k + 1), method=method.value, **options)
        print_table(table, "How well each number of domains holds together")
        if curve is not None:
            draw(table, chosen=k, save=curve)
    if k is None or out is None:
        say("Choose a number with --k, and a file with --out.")
        return
    found = sg.domains(sections, k, method=method.value, key=key, **options)
    print_table(_sizes(sections, key), f"\nDomains, stability {found.stability:.2f}")
    names = file_names([section.slide_id for section in sections])
    for section, name in zip(sections, names, strict=True):
        path = write_h5ad(section.adata, out if one_file else out / f"{name}.h5ad")
        say(f"obs[{key!r}] written to {path}")
    if groups is not None:
        say(f"obs[{key!r}] written to {write_cell_groups(sections[0].adata, key, groups)}")


def _sizes(sections: "list[Slide]", key: str) -> "pd.DataFrame":
    """Cells and mean confidence of each domain."""
    import pandas as pd

    from spatiagraph.inference.domains.write import confidence_key

    columns = [key, confidence_key(key)]
    obs = pd.concat([section.adata.obs[columns] for section in sections])
    return obs.groupby(key, observed=True)[columns[1]].agg(cells="size", confidence="mean")
