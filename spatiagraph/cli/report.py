"""``spatiagraph report``."""

from pathlib import Path
from typing import Annotated

import typer

from spatiagraph.cli.options import (
    Labels,
    SlideOptions,
    Unlabelled,
    seed_option,
    with_slide_options,
)


@with_slide_options
def report(
    slide: Annotated[
        Path,
        typer.Argument(help="File that `spatiagraph embed` wrote, or an embedded cohort.zarr."),
    ],
    slide_options: SlideOptions,
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

    Domains over the image, a map of the cells to move about in, scores beside baselines where
    there are labels, niches that are alike, how training went, the genes that were measured. With
    labels and --run the model before training is scored as well, and the page says what training
    did. Of a cohort, maps of all slides, their domains and what each measures.
    """
    from spatiagraph.cli.early import check_run_folder
    from spatiagraph.data.cohort.layout import is_cohort

    if is_cohort(slide):
        slide_options.check_unused()
        if run is not None or labels is not None or unlabelled:
            raise ValueError("Expected --domains, --seed and --out with a cohort, got others")
        write_cohort(slide, 7 if domains is None else domains, out, seed)
        return
    slide_options.check([slide], labels=labels)
    if run is not None:
        check_run_folder(run)
    from spatiagraph.cli.console import check_output_file, print_table, say, say_unlabelled
    from spatiagraph.cli.embed import load_model
    from spatiagraph.inference.domains import known_labels
    from spatiagraph.report import report_slide
    from spatiagraph.report.scores import training_verdict

    check_output_file(out, ".html")
    model = None if run is None else load_model(run)
    section, heard = slide_options.read_with_warnings(slide)
    known = known_labels(section, labels, unlabelled or None)
    say_unlabelled(section.adata.obs, labels, known)
    done = report_slide(
        section,
        out,
        labels=labels,
        unlabelled=unlabelled or None,
        num_domains=domains,
        model=model,
        run=run,
        warnings=heard,
        seed=seed,
    )
    if done.scores is not None:
        print_table(done.scores[["ARI", "ARI_std", "NMI", "NMI_std"]])
        if told := training_verdict(done.scores):
            say(told)
    say(f"report written to {done.path}")


def write_cohort(path: Path, num_domains: int, out: Path, seed: int) -> None:
    """Write the page of a cohort.

    Args:
        path: The cohort.
        num_domains: Number of domains.
        out: The file.
        seed: Seed of the clustering.
    """
    from spatiagraph.cli.console import check_output_file, say
    from spatiagraph.data.cohort import Cohort
    from spatiagraph.report import report_cohort

    check_output_file(out, ".html")
    say(f"report written to {report_cohort(Cohort(path), out, num_domains=num_domains, seed=seed)}")
