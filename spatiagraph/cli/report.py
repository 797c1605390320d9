"""``spatiagraph report``."""

from pathlib import Path
from typing import Annotated

import typer

from spatiagraph.cli.options import Labels, Unlabelled, seed_option


def report(
    slide: Annotated[Path, typer.Argument(help="File that `spatiagraph embed` wrote.")],
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run that trained the model.")
    ] = None,
    labels: Labels = None,
    unlabelled: Unlabelled = None,
    domains: Annotated[
        int | None, typer.Option(help="Number of domains; by default that of the labels, or 7.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The .html file to write.")] = Path("report.html"),
    seed: Annotated[int, seed_option("Seed of the clustering.")] = 0,
) -> None:
    """Show an embedded slide on one page that works offline.

    Domains at niche and tissue level over the image, a map of the cells to move about in, scores
    beside baselines where there are labels, niches that are alike, how training went, the genes
    that were measured.
    """
    from spatiagraph.cli.console import check_output_file, print_table, say
    from spatiagraph.cli.embed import load_model
    from spatiagraph.cli.results import find_domains, known_labels, read_embedded, write_page

    check_output_file(out, ".html")
    model = None if run is None else load_model(run)
    section = read_embedded(slide)
    truth = known_labels(section, labels, unlabelled or ())
    results = find_domains(section, truth, num_domains=domains, seed=seed)
    if results.scores is not None:
        print_table(results.scores)
    write_page(out, section, results, labels=labels, model=model, run=run)
    say(f"report written to {out}")
