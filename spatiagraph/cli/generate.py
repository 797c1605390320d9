"""``spatiagraph generate``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from spatiagraph.cli.nuclei import NUCLEI, Nuclei, nuclei_of
from spatiagraph.cli.options import SlideOptions, seed_option, with_slide_options

_TRAIN = "How to train a generator"


class Preset(StrEnum):
    """Sizes of a generator."""

    tiny = "tiny"
    small = "small"
    base = "base"


class Fallback(StrEnum):
    """Fallback where no niche holds both states."""

    skip = "skip"
    across = "global"


def _training(help: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=_TRAIN, **options)


@with_slide_options
def generate(
    slides: Annotated[
        list[Path],
        typer.Argument(help="Files that `spatiagraph embed` wrote, of slides with images."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for images, scores and the generator.")],
    transition: Annotated[
        list[str],
        typer.Option(help="Change of state as control:target or control:target:name; repeatable."),
    ],
    slide_options: SlideOptions,
    states: Annotated[
        str | None,
        typer.Option(help="Column of obs with the states of cells; a trained generator knows it."),
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="Folder of a trained generator, instead of training one.")
    ] = None,
    niches: Annotated[
        str | None, _training("Column of obs; pairs stay in their niche. A slide if not given.")
    ] = None,
    fallback: Annotated[
        Fallback, _training("Where no niche holds both states: leave out, or pair across niches.")
    ] = Fallback.skip,
    preset: Annotated[Preset, _training("Size of the network.")] = Preset.tiny,
    size_px: Annotated[int, _training("Side of the images in pixels.", min=8)] = 32,
    window_um: Annotated[float, _training("Side of their window in µm.", min=1.0)] = 13.6,
    epochs: Annotated[int, _training("Passes over the pairs.", min=1)] = 30,
    nuclei: Annotated[Nuclei | None, _training(NUCLEI)] = None,
    steps: Annotated[int, typer.Option(help="Steps of the integration.", min=1)] = 25,
    guidance: Annotated[
        float, typer.Option(help="How much the condition is exaggerated; 0 is twice as fast.")
    ] = 0.2,
    max_cells: Annotated[
        int, typer.Option(help="Cells of each slide and transition to make images of.", min=2)
    ] = 500,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, mps, …")] = "auto",
    seed: Annotated[int, seed_option("Same seed, same images.")] = 0,
) -> None:
    """Show what cells would look like in another state.

    Pairs cells of both states by their genes, trains a generator of images on most of the tissue,
    and scores it on the rest beside two bounds: returning the cell as it is (identity) and other
    real cells of the target state (random_target). Writes scores.csv, a picture, and the images of
    the control cells as .zarr. An interrupted command goes on where it stopped.
    """
    slide_options.check(slides, states=states)
    from spatiagraph._files import check_output_folder
    from spatiagraph.cli.console import check_accelerator, file_names, quiet_libraries, say

    quiet_libraries()
    from spatiagraph import inference
    from spatiagraph._tables import write_csv
    from spatiagraph.cli.transitions import parse_transitions, print_scores, write_galleries
    from spatiagraph.data.recipe import Crop
    from spatiagraph.flow.sampling import Sampling
    from spatiagraph.inference.embedded import one_model_name
    from spatiagraph.models.generator import SIZES, ImageGenerator
    from spatiagraph.training import Pairing, Run

    check_accelerator(accelerator)
    check_output_folder(out)
    sampling = Sampling(steps, guidance=guidance, seed=seed)
    changes = parse_transitions(transition)
    sections = slide_options.read_all(slides)
    one_model_name(sections)
    for section in sections:
        say(repr(section))
    each = [(section, tag) for section in sections for *_, tag in changes]
    names = file_names([f"{section.slide_id}_{tag}" for section, tag in each])
    if states is not None and generator is None:
        size, crop = SIZES[preset.value], Crop(window_um, size_px)
        fitted, scores = inference.fit_and_score_transitions(
            sections,
            inference.transition_generator(
                sections, changes, size, states_key=states, crop=crop, seed=seed
            ),
            Pairing(niche_key=niches, fallback=fallback.value),
            foreground=nuclei_of(sections, nuclei),
            max_pairs=max_cells,
            sampling=sampling,
            run=Run(max_epochs=epochs, average=0.999, accelerator=accelerator, seed=seed, out=out),
        )
        model = fitted.generator
        write_csv(scores.table, out / "scores.csv", index=True)
        write_galleries(out, scores)
        print_scores(scores)
    elif generator is not None and states is None:
        inside = Path(generator) / "generator" / "model"
        model = ImageGenerator.from_pretrained(inside if inside.is_dir() else Path(generator))
    else:
        raise ValueError(
            "Expected --states to train a generator, or a trained --generator; got both or neither"
        )
    say("")
    for (section, tag), stem in zip(each, names, strict=True):
        rows = inference.control_cells(model, section, tag, max_cells=max_cells, seed=seed)
        if len(rows):
            made = inference.generate(model, section, transition=tag, cells=rows, sampling=sampling)
            say(str(made.save(out / f"{stem}.zarr")))
        else:
            say(f"no cell of slide {section.slide_id!r} is in the control state of {tag!r}")
