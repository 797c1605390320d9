"""Transfer between donors on the command line: who they are, what is trained, what is shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from spatiagraph.data.slide import Slide
    from spatiagraph.models.base import SlideModel


def score_donors(
    slides: "Sequence[Slide]",
    labels: str,
    unlabelled: Sequence[str],
    donor_key: str | None,
    model: str,
    num_seeds: int,
    out: Path | None,
) -> None:
    """Score a model and the baselines on each donor in turn; print, and write if asked.

    Args:
        slides: Slides of two donors or more.
        labels: Column of ``obs`` with the labels that are carried over.
        unlabelled: Labels that mean there is none.
        donor_key: Column of ``obs`` with the donor; what the slides say when not given.
        model: Name of the model to train, or ``"none"``.
        num_seeds: Clusterings of each embedding.
        out: The .csv to write, with a row for each embedding and donor.

    Raises:
        ValueError: A donor is not known, there is one only, or labels are missing.
    """
    import numpy as np
    import pandas as pd

    from spatiagraph._tables import write_csv
    from spatiagraph.cli.console import print_table, quiet_libraries, say
    from spatiagraph.evaluate import score_transfer, summarize_transfer
    from spatiagraph.inference import ZeroShot
    from spatiagraph.inference.domains import Sections
    from spatiagraph.models import model_class
    from spatiagraph.training import fit

    quiet_libraries()
    sections = Sections(slides)
    donors = [donor_of(slide, donor_key) for slide in slides]
    truth = pd.concat([_labels(slide, labels, unlabelled) for slide in slides], ignore_index=True)
    embeddings = {}
    if model != "none":
        kind = model_class(model)

        def train(seen: "Sequence[Slide]") -> "SlideModel":
            made = kind.from_options(seen, seed=0)
            fit(made, list(seen), seed=0, progress=False)
            return made

        zero_shot = ZeroShot(slides, train)
        embeddings = {f"{model}_{level}": zero_shot.level(level) for level in ("cell", "niche")}
    table = score_transfer(
        embeddings,
        sections.counts,
        sections.pos,
        truth,
        donor=np.asarray(donors, dtype=object)[sections.number],
        slide=np.asarray([slide.slide_id for slide in slides])[sections.number],
        expression=sections.expression,
        num_seeds=num_seeds,
        progress=True,
    )
    say(f"\nLearned on other donors, of {len(set(donors))}; mean over donors")
    print_table(_readable(summarize_transfer(table)))
    if out is not None:
        write_csv(table, out)
        say(f"\nwritten to {out}")


def _readable(summary: "pd.DataFrame") -> "pd.DataFrame":
    """Mean and deviation in one column each: four metrics fit on a line."""
    import pandas as pd

    names = [name for name in summary if f"{name}_std" in summary]
    columns = {}
    for name in names:
        pairs = zip(summary[name], summary[f"{name}_std"], strict=True)
        columns[name] = [f"{m:.3f} ± {s:.3f}" if m == m else "–" for m, s in pairs]
    return pd.DataFrame(columns, index=summary.index)


def donor_of(slide: "Slide", key: str | None) -> str:
    """Donor of a slide: the only entry of a column of ``obs``, or what the slide says.

    Args:
        slide: The slide.
        key: Column of ``obs``.

    Raises:
        ValueError: It is not known, or the column has several.
    """
    from spatiagraph.data.checks import nearest

    if key is None:
        if slide.donor is None:
            raise ValueError(
                f"Expected the donor of slide {slide.slide_id!r}, which does not say: pass "
                "--donor-key, a column of obs"
            )
        return slide.donor
    if key not in slide.adata.obs:
        close = nearest(key, [str(c) for c in slide.adata.obs])
        raise ValueError(f"Expected a column of obs for --donor-key, got {key!r}. {close}")
    names = slide.adata.obs[key].dropna().astype(str).unique()
    if len(names) != 1:
        raise ValueError(
            f"Expected one donor in obs[{key!r}] of slide {slide.slide_id!r}, got {len(names)}. "
            "Sections of several donors in one file are told apart by --sample-key"
        )
    return str(names[0])


def _labels(slide: "Slide", column: str, unlabelled: Sequence[str]) -> "pd.Series":
    from spatiagraph.data.checks import nearest

    if column not in slide.adata.obs:
        close = nearest(column, [str(c) for c in slide.adata.obs])
        raise ValueError(
            f"Expected labels in obs[{column!r}] of slide {slide.slide_id!r}, got none. {close}"
        )
    values = slide.adata.obs[column].astype(object)
    return values.mask(values.isna() | values.astype(str).isin(list(unlabelled)))
