"""Files and folders of slides, by their names: nothing is opened, nothing heavy imported."""

import fnmatch
import glob
import re
from pathlib import Path

KINDS = (
    "an .h5ad file, a SpatialData .zarr, or a folder of Space Ranger (with spatial/), Xenium "
    "(experiment.xenium), MERSCOPE (cell_by_gene.csv) or CosMx (*exprMat_file.csv)"
)
_ANCHORS = re.compile(  # names that tell whose folder it is, after what GEO or a user put first
    r"(?P<prefix>|.*?[_.\- ])(?:experiment\.xenium|cell_feature_matrix(?:\.h5)?"
    r"|(?:filtered|raw)_feature_(?:bc|cell)_matrix(?:\.h5)?|matrix\.mtx(?:\.gz)?"
    r"|(?<!detected_)transcripts\.(?:parquet|csv(?:\.gz)?)"
    r"|tissue_positions(?:_list)?\.(?:parquet|csv)(?:\.gz)?|scalefactors_json\.json(?:\.gz)?)",
    re.IGNORECASE,
)
_PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".tar.bz2")
_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")
IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".svs", ".ndpi")
"""Endings of names of images."""
_STORE = (".zgroup", "zarr.json", ".zattrs", "zmetadata")
_MARKS: tuple[tuple[str, ...], ...] = (  # all that readers of vendors' folders know them by
    ("spatial/tissue_positions*",),
    ("spatial/scalefactors_json.json*",),
    ("tissue_positions*", "*matrix*"),
    ("*cell_segmentations.geojson",),
    ("experiment.xenium",),
    ("transcripts.parquet",),
    ("transcripts.csv*",),
    ("cell_feature_matrix*", "cells.*"),
    ("images/micron_to_mosaic_pixel_transform.csv",),
    ("*cell_by_gene.*",),
    ("*detected_transcripts.*",),
    ("*exprMat_file.*",),
    ("*metadata_file.*",),
    ("*tx_file.*",),
)


def check_place(path: Path) -> None:
    """Refuse a path at which no slide can be.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is a folder without any file that a reader knows a slide by, or with files
            of several slides.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected {KINDS}, found nothing at {path}")
    if path.is_dir():
        check_one_slide(path)
        if not could_be_slide(path):
            raise ValueError(unknown_folder(path))


def could_be_slide(folder: Path) -> bool:
    """Check that a folder holds a marker file of a known format, or may be a store."""
    if folder.suffix.lower() == ".zarr" or any((folder / mark).exists() for mark in _STORE):
        return True
    inside = folder / "outs" if (folder / "outs").is_dir() else folder
    return any(all(listed(inside, part) for part in mark) for mark in _MARKS)


def check_one_slide(folder: Path) -> None:
    """Refuse a folder with files of several slides, by the beginnings of their names.

    Args:
        folder: The folder.

    Raises:
        ValueError: Names what they begin with, and how to part them.
    """
    found, inside = _prefixes(folder), listed(folder, "*")
    # a sample has several files; raw_matrix.mtx beside filtered_matrix.mtx are of one
    found = [p for p in found if not p or sum(f.name.startswith(p) for f in inside) > 1]
    if "" in found or len(found) < 2 or could_be_slide(folder):
        return
    names = [prefix.rstrip("_.- ") for prefix in found]
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    raise ValueError(
        f"Expected one slide, got the folder {folder.name or folder} with files of {len(names)}: "
        f"{shown}. Move those of each into a folder of its own, as by mkdir {names[0]} && mv "
        f"{names[0]}[!a-zA-Z0-9]* {names[0]}, and pass one of them"
    )


def unknown_folder(folder: Path) -> str:
    """Say what is in a folder that is no slide, and what to do.

    Args:
        folder: The folder.
    """
    inside = [*listed(folder, "*"), *listed(folder, "binned_outputs/*")]
    deeper = [p for below in inside if below.is_dir() for p in listed(below, "*")]
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
    elif packed := [p.name for p in inside if p.name.lower().endswith(_PACKED)]:
        mend = f"Unpack {packed[0]} in it first"
    elif listed(folder, "matrix.mtx*") or listed(folder, "*feature_*_matrix*"):
        mend = (
            "It has counts and no places of cells: add spatial/ (tissue_positions, "
            "scalefactors_json.json), or write an .h5ad with the places in obsm['spatial']"
        )
    elif any("transcript" in p.name for p in inside):
        mend = (
            "Its transcripts are of no vendor that is known: count them with "
            "spatiagraph.data.transcripts.counts_from_transcripts and write an .h5ad"
        )
    elif any(p.name.lower().endswith(_TABLES) for p in [*inside, *deeper]):
        mend = (
            "Its tables are of no vendor that is known: write an .h5ad of counts and places, "
            "AnnData(counts, obsm={'spatial': xy_in_um}), or pass a table with the places of cells "
            "and their types or proteins"
        )
    else:
        mend = "Pass the folder or file that holds counts and coordinates"
    return f"Expected {KINDS}, got {folder} with {found or 'nothing in it'}. {mend}"


def listed(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder by a pattern, in order of names.

    Where none are called so, those are found in whose names one prefix stands before what their
    maker calls them, as GEO puts before all files of a sample.

    Files that begin with a dot are left out: a Mac writes ``._<name>`` beside each file on disks
    that are not its own, and they hold nothing of the slide.

    Args:
        folder: Where to look.
        pattern: Name with ``*``, maybe after folders, as of :func:`fnmatch.fnmatch`, in capital or
            small letters.
    """
    *parents, name = pattern.split("/")
    inside = folder.joinpath(*parents)
    there = [p for p in inside.iterdir() if not p.name.startswith(".")] if inside.is_dir() else []
    found = _matching(there, name)
    if not found and len(prefixes := _prefixes(inside)) == 1:
        found = _matching(there, f"{glob.escape(prefixes[0])}{name}")
    return found


def member(folder: Path, name: str) -> Path:
    """A file of a folder by the name that its maker gave it, which :func:`listed` finds.

    Args:
        folder: Where it lies.
        name: As its maker calls it.

    Returns:
        Where it would lie, if there is none.
    """
    return next(iter(listed(folder, name)), folder / name)


def _matching(files: list[Path], pattern: str) -> list[Path]:
    wanted = re.compile(fnmatch.translate(pattern), re.IGNORECASE)
    return sorted(p for p in files if wanted.match(p.name))


def _prefixes(folder: Path) -> list[str]:
    """What stands before names that vendors give to files; ``""`` among them where nothing does."""
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    found = (_ANCHORS.fullmatch(name) for name in names if not name.startswith("."))
    return sorted({match["prefix"] for match in found if match})
