"""``spatiagraph demo``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spatiagraph.cli.nuclei import nuclei_of
from spatiagraph.cli.options import (
    Labels,
    SlideOptions,
    Unlabelled,
    seed_option,
    with_slide_options,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from spatiagraph.data.slide import Slide
    from spatiagraph.retrieval.index import NicheIndex

_SYNTHETIC = ("type0:type3:larger nuclei", "type0:type4:smaller nuclei")


@with_slide_options
def demo(
    slide_options: SlideOptions,
    slide: Annotated[
        Path | None, typer.Argument(help="Slide of your own; synthetic tissue when not given.")
    ] = None,
    labels: Labels = None,
    unlabelled: Unlabelled = None,
    cells: Annotated[int, typer.Option(help="Cells of the synthetic tissue.", min=100)] = 5000,
    epochs: Annotated[int, typer.Option(help="Passes over all cells.", min=1)] = 5,
    states: Annotated[
        str | None, typer.Option(help="Column of obs with states of cells, for --transition.")
    ] = None,
    transition: Annotated[
        list[str] | None,
        typer.Option(help="Also show what cells would look like: control:target; repeatable."),
    ] = None,
    generate: Annotated[
        bool,
        typer.Option(
            "--generate/--no-generate", help="Make images of cells in another state, or end before."
        ),
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("spatiagraph-demo"),
    seed: Annotated[int, seed_option("Same seed, same result.")] = 0,
) -> None:
    """From a slide to niches that can be searched, in one go.

    Trains a small model, embeds every cell, niche and region, finds domains, indexes the niches and
    writes a report; then generates images of cells in another state (of clusters of cells, unless
    told which) and adds them to it. Without a slide of your own it makes tissue whose niches are
    known, and prints how well they are found (ARI: 1 is perfect, 0 is chance) beside plain
    baselines and the model before training.
    """
    from spatiagraph.cli.transitions import parse_transitions

    asked = parse_transitions(transition or ())
    if (states is None) != (not asked):
        raise ValueError("Expected --states and --transition together, got one of them")
    if asked and not generate:
        raise ValueError("Expected --transition or --no-generate, got both")
    if slide is not None:
        slide_options.check([slide], labels=labels, states=states)
    from spatiagraph._files import check_output_folder
    from spatiagraph.cli.console import print_table, quiet_libraries, say, say_unlabelled

    check_output_folder(out)
    quiet_libraries()
    from spatiagraph import inference, keys, training
    from spatiagraph.cli.phases import Phases
    from spatiagraph.cli.transitions import print_scores
    from spatiagraph.data.synthetic import make_tissue
    from spatiagraph.data.writing import write
    from spatiagraph.inference.domains import known_labels
    from spatiagraph.inference.embedded import model_name
    from spatiagraph.inference.preview import MIN_CELLS
    from spatiagraph.models import ContextModel
    from spatiagraph.pairing.transitions import as_transitions, check_states, column
    from spatiagraph.report import report_slide
    from spatiagraph.report.scores import training_verdict

    if slide is None:
        section = make_tissue(cells, image="he", seed=seed)
        heard: list[str] = []
        labels = labels or "niche"
        if generate and not asked and cells >= MIN_CELLS:
            states, asked = "cell_type", parse_transitions(_SYNTHETIC)
    else:
        section, heard = slide_options.read_with_warnings(slide)
    say(repr(section))
    known = known_labels(section, labels, unlabelled or None)  # refused now, not after the work
    say_unlabelled(section.adata.obs, labels, known)
    nuclei = nuclei_of([section], None) if asked else None
    if asked:
        check_states([column(section, str(states))], as_transitions(asked), str(states))
    phases = Phases(4 if generate else 3)
    with phases.phase(f"train a small model, {epochs} passes over {section.num_cells:,} cells"):
        model = ContextModel.for_slides([section], seed=seed)
        run = out / "run"
        result = training.fit(model, [section], max_epochs=epochs, seed=seed, out=run)
    with phases.phase("embed cells, niches and regions"):
        inference.embed(model, section)
    with phases.phase("find domains, compare them with baselines, write the report"):
        done = report_slide(
            section,
            out / "report.html",
            labels=labels,
            unlabelled=unlabelled or None,
            model=model,
            run=run,
            warnings=heard,
            seed=seed,
            progress=True,
        )
        write(section, out / "embeddings.h5ad")
        done.index.save(out / "index")
    say(f"trained {len(result.history)} epochs at {result.cells_per_second:,.0f} cells/s")
    row = section.num_cells // 2
    title = f"\nNiches like that of {section.adata.obs_names[row]}"
    print_table(_alike(section, done.index, row, labels), title)
    if done.scores is not None:
        columns = ["ARI", "ARI_std", "NMI"]
        print_table(done.scores[columns], f"\nDomains found, against obs[{labels!r}]")
        if told := training_verdict(done.scores):
            say(told)
    say(f"\n{done.path}\n{out / 'embeddings.h5ad'}\n{out / 'index'}\n")
    if not generate:
        return
    with phases.phase("generate cells in another state (--no-generate ends before)"):
        try:
            scores = inference.preview_transitions(
                section, asked, states_key=states, foreground=nuclei, seed=seed, out=out
            )
        except ValueError as err:  # clusters may not be where they could be learned from
            if asked:
                raise
            say(f"No images of other states: {err}")
            return
        if not asked:
            key = keys.group_key(model_name(section.adata), "state")
            say(f"States of cells are clusters of their embeddings, obs[{key!r}]")
            nuclei_of([section], None)
        done.add_transitions(scores)
        write(section, out / "embeddings.h5ad")
    print_scores(scores)
    say(f"\n{done.path}, with images of cells in another state")


def _alike(section: "Slide", index: "NicheIndex", row: int, labels: str | None) -> "pd.DataFrame":
    """Niches like that of a cell, in other places."""
    from spatiagraph.inference.embedded import check_level, level_width_um
    from spatiagraph.retrieval.apart import usual_distance

    def search(k: int, among: "NDArray[np.bool_]") -> "pd.DataFrame":
        return index.search_like([row], k, where=among, include_query=True)

    apart_um = level_width_um(section, check_level(section.adata, None))
    usual = usual_distance(search, index.obs["x_um"].notna().to_numpy())
    hits = index.search_like([row], 5, apart_um=apart_um, max_distance=usual)
    columns = ["id", "distance", "x_um", "y_um", *([labels] if labels else [])]
    return hits.set_index("rank")[columns]
