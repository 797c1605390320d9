"""Files and folders of slides, by their names: nothing is opened, nothing heavy imported."""

import fnmatch
import re
from pathlib import Path

KINDS = (
    "an .h5ad file, a SpatialData .zarr, or a folder of Space Ranger (with spatial/), Xenium "
    "(experiment.xenium), MERSCOPE (cell_by_gene.csv) or CosMx (*exprMat_file.csv)"
)
_STORE = (".zgroup", "zarr.json", ".zattrs", "zmetadata")
_MARKS = (  # all that readers of vendors' folders know them by
    "spatial/tissue_positions*",
    "spatial/scalefactors_json.json",
    "*cell_segmentations.geojson",
    "experiment.xenium",
    "transcripts.parquet",
    "images/micron_to_mosaic_pixel_transform.csv",
    "*cell_by_gene.*",
    "*detected_transcripts.*",
    "*exprMat_file.*",
    "*metadata_file.*",
    "*tx_file.*",
)


def check_place(path: Path) -> None:
    """Refuse a path at which no slide can be.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is a folder without any file that a reader knows a slide by.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected {KINDS}, found nothing at {path}")
    if path.is_dir() and not could_be_slide(path):
        raise ValueError(unknown_folder(path))


def could_be_slide(folder: Path) -> bool:
    """Check that a folder holds a marker file of a known format, or may be a store."""
    if folder.suffix.lower() == ".zarr" or any((folder / mark).exists() for mark in _STORE):
        return True
    inside = folder / "outs" if (folder / "outs").is_dir() else folder
    return any(listed(inside, mark) for mark in _MARKS)


def unknown_folder(folder: Path) -> str:
    """Say what is in a folder that is no slide, and what to do.

    Args:
        folder: The folder.
    """
    inside = [*listed(folder, "*"), *listed(folder, "binned_outputs/*")]
    slides = [
        p for p in inside if p.suffix.lower() == ".h5ad" or (p.is_dir() and could_be_slide(p))
    ]
    if slides:
        names = ", ".join(str(p.relative_to(folder)) for p in slides[:12])
        where = folder.name or folder
        return f"Expected one slide, got the folder {where} with {names}. Pass one of them"
    found = ", ".join([p.name for p in listed(folder, "*")][:8])
    if any((folder / mark).exists() for mark in ("scalefactors_json.json", "tissue_positions.csv")):
        mend = "It has spots but no counts: filtered_feature_bc_matrix and spatial/ are missing"
    elif any("transcript" in p.name for p in inside):
        mend = (
            "Its transcripts are of no vendor that is known: count them with "
            "spatiagraph.data.transcripts.counts_from_transcripts and write an .h5ad"
        )
    else:
        mend = "Pass the folder or file that holds counts and coordinates"
    return f"Expected {KINDS}, got {folder} with {found or 'nothing in it'}. {mend}"


def listed(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder by a pattern, in order of names.

    Files that begin with a dot are left out: a Mac writes ``._<name>`` beside each file on disks
    that are not its own, and they hold nothing of the slide.

    Args:
        folder: Where to look.
        pattern: Name with ``*``, maybe after folders, as of :func:`fnmatch.fnmatch`, in capital or
            small letters.
    """
    *parents, name = pattern.split("/")
    inside, wanted = folder.joinpath(*parents), re.compile(fnmatch.translate(name), re.IGNORECASE)
    found = inside.iterdir() if inside.is_dir() else ()
    return sorted(p for p in found if wanted.match(p.name) and not p.name.startswith("."))
