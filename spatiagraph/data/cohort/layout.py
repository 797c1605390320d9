"""Layout of a cohort on the disk: names, what is noted where, and how arrays are stored.

::

    cohort.zarr/
      zarr.json                  Zarr group; its attributes hold the manifest of the cohort
      slides/
        s1-0123abcd/
          zarr.json              its attributes hold the checksum of every file of the slide
          cells/                 the slide as AnnData in Zarr, cells in Hilbert order: counts of
                                 all genes, labels, positions, graph; embeddings once there are
          tiles/
            0, 1, …              a tile each with all its context: one array of bytes, one shard
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from spatiagraph._files import replaced_file
from spatiagraph._json import Schema, read_json, validated

VERSION = 1
"""Version of the layout."""
ROOT, META = "zarr.json", "spatiagraph"
"""Metadata file of a Zarr group, and the key of its attributes that is ours."""
SLIDES, CELLS, TILES = "slides", "cells", "tiles"
ROW, TILE = "cohort_row", "cohort_tile"
"""``obs``: row of a cell in the slide that was given, and number of the tile it is core of."""
CHUNK_CELLS, SHARD_CELLS = 4096, 65536
CHUNK_VALUES, SHARD_VALUES = 2**18, 2**22
CHUNK_BYTES = 2**20
_JSON_BYTES = 2**28
_AGAIN = "restore it, or create the cohort again"


class SlideEntry(Schema):
    """A slide of a cohort, as its manifest lists it.

    Attributes:
        slide_id: Name of the slide.
        folder: Its folder under ``slides``.
        donor: The person or animal it comes from.
        expression: Kind of its values.
        num_cells: Number of cells.
        num_genes: Number of genes that the slide measures.
        num_tiles: Number of tiles.
        has_image: Whether crops were made of an image.
        panel_coverage: Share of the panel that it measures.
        content_hash: Hash of counts, genes, positions and image, as a record of a run has it.
        source_hash: Hash of that and of what else was given: the folder is named after it.
        files_hash: Hash of the list of its files.
    """

    slide_id: str = Field(min_length=1)
    folder: str = Field(pattern=r"^[^./\\][^/\\]*$")
    donor: str | None
    expression: Literal["counts", "normalized"]
    num_cells: int = Field(ge=1)
    num_genes: int = Field(ge=1)
    num_tiles: int = Field(ge=1)
    has_image: bool
    panel_coverage: float
    content_hash: str
    source_hash: str
    files_hash: str


class Manifest(Schema):
    """Manifest of a cohort.

    Attributes:
        format: Version of the layout.
        spatiagraph: Version that made it.
        recipe: How slides became tiles.
        tile_size: Core cells of a tile, at most.
        num_hops: Hops over the cell graph whose cells a tile holds.
        slides: The slides, in order.
    """

    format: int
    spatiagraph: str
    recipe: dict[str, Any]
    tile_size: int = Field(ge=1)
    num_hops: int = Field(ge=0)
    slides: list[SlideEntry]

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the cohort: equal where tiles of slides can stand beside each other."""
        return {"recipe": self.recipe, "tile_size": self.tile_size, "num_hops": self.num_hops}


class Results(Schema):
    """Embeddings that were written to a slide by one model.

    Attributes:
        name: Short name of the model.
        levels: Names of the levels above cells, from cells upwards.
        slots: Slots of ``obsm``.
        record: Record of the embedding, as ``embed`` notes it.
        files: Path → size and hash.
    """

    name: str
    levels: list[str]
    slots: list[str]
    record: dict[str, Any]
    files: dict[str, tuple[int, str]]


class SlideFiles(Schema):
    """Files of a slide, and what was written to it since.

    Attributes:
        files: Path in the folder of the slide → size in bytes, and hash.
        results: Embeddings by the name of their model; the last is the newest.
    """

    files: dict[str, tuple[int, str]]
    results: list[Results] = []


def is_cohort(path: str | os.PathLike[str]) -> bool:
    """Check that a folder looks like a cohort, whole or not."""
    root = Path(path) / ROOT
    if not root.is_file():
        return False
    try:
        attributes = read_json(root, max_bytes=_JSON_BYTES).get("attributes", {})
    except (ValueError, AttributeError):
        return (Path(path) / SLIDES).is_dir()  # damaged, which Cohort says
    return isinstance(attributes, dict) and "manifest" in (attributes.get(META) or {})


def cohort_place(path: str | os.PathLike[str]) -> Path:
    """Folder to write a cohort to.

    Args:
        path: A folder, there or not.

    Raises:
        ValueError: It does not end in ``.zarr``.
        NotADirectoryError: It is a file.
    """
    place = Path(path).resolve()
    if place.suffix.lower() != ".zarr":
        raise ValueError(f"Expected a folder that ends in .zarr, got {Path(path).name!r}")
    if place.exists() and not place.is_dir():
        raise NotADirectoryError(f"Expected a folder to write to, {str(path)!r} is a file")
    return place


def read_manifest(place: Path) -> Manifest:
    """Manifest of a cohort.

    Args:
        place: Its folder.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no cohort, of another version, or its manifest is not as it was written.
    """
    if not place.exists():
        raise FileNotFoundError(f"Expected a cohort at {str(place)!r}, there is nothing")
    root, where = place / ROOT, repr(str(place / ROOT))
    if not root.is_file():
        raise ValueError(
            f"Expected a cohort, a .zarr folder that Cohort.create wrote, found none at "
            f"{str(place)!r}"
        )
    note = _note(root)
    if "manifest" not in note:
        raise ValueError(
            f"Expected a cohort at {str(place)!r}, found another Zarr store: make one of slides "
            "with Cohort.create or `spatiagraph prepare --cohort`"
        )
    given = note["manifest"]
    if isinstance(given, dict) and given.get("format") != VERSION:
        raise ValueError(
            f"Expected a cohort of version {VERSION}, {str(place)!r} is of version "
            f"{given.get('format')!r}: create it again"
        )
    if note.get("hash") != hash_of(given):
        raise ValueError(f"Expected {where} as it was written, found it changed: {_AGAIN}")
    return validated(given, Manifest, where)


def write_manifest(place: Path, manifest: Manifest) -> None:
    """Write the manifest of a cohort, the old one staying until the new one is complete."""
    plain = manifest.model_dump(mode="json")
    write_group(place, {META: {"manifest": plain, "hash": hash_of(plain)}})


def read_files(folder: Path, files_hash: str | None = None) -> SlideFiles:
    """List of the files of a slide.

    Args:
        folder: Folder of the slide.
        files_hash: What the manifest of the cohort says of it.

    Raises:
        ValueError: It is missing, or not as it was written.
    """
    where = repr(str(folder / ROOT))
    if not (folder / ROOT).is_file():
        raise ValueError(f"Expected {where}, found none: {_AGAIN}")
    note = _note(folder / ROOT)
    given: Any = note.get("slide")
    if note.get("hash") != hash_of(given):
        raise ValueError(f"Expected {where} as it was written, found it changed: {_AGAIN}")
    found: SlideFiles = validated(given, SlideFiles, where)
    if files_hash is not None and files_hash != hash_of(given["files"]):
        raise ValueError(f"Expected {where} of this cohort, found that of another: {_AGAIN}")
    return found


def write_files(folder: Path, found: SlideFiles) -> None:
    """Write the list of the files of a slide, which makes it a whole one."""
    plain = found.model_dump(mode="json")
    write_group(folder, {META: {"slide": plain, "hash": hash_of(plain)}})


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Write the metadata of a Zarr group."""
    write_plain(folder / ROOT, {"attributes": attributes, "zarr_format": 3, "node_type": "group"})


def write_plain(path: Path, value: Any) -> None:
    """Write plain values as JSON, the old file staying until the new one is complete."""
    with replaced_file(path) as new:
        new.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def hash_of(value: Any) -> str:
    """Hash of plain values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_hash(path: Path) -> tuple[int, str]:
    """Size of a file in bytes, and its hash."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, in the order of their names, without its own metadata."""
    for each in sorted(folder.rglob("*")):
        if each.is_file() and each != folder / ROOT:
            yield each


def codecs() -> list[Any]:
    """Codecs of chunks: compressed, and each with a checksum that reading compares."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return [ZstdCodec(level=3), Crc32cCodec()]


def chunked(values: NDArray[Any]) -> dict[str, Any]:
    """Chunks and shards of an array with one row for each cell."""
    rows = (CHUNK_VALUES, SHARD_VALUES) if values.ndim == 1 else (CHUNK_CELLS, SHARD_CELLS)
    chunk, shard = (max(1, min(size, 1 << max(0, len(values) - 1).bit_length())) for size in rows)
    rest = tuple(max(1, size) for size in values.shape[1:])
    return {"chunks": (chunk, *rest), "shards": (max(chunk, shard), *rest), "compressors": codecs()}


def _note(root: Path) -> dict[str, Any]:
    """What is ours in the metadata of a group; empty if nothing is."""
    found = read_json(root, max_bytes=_JSON_BYTES)
    attributes = found.get("attributes") if isinstance(found, dict) else None
    note = attributes.get(META) if isinstance(attributes, dict) else None
    return note if isinstance(note, dict) else {}
