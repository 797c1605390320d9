"""Names of AnnData slots and graph attributes, each with its shape and unit.

No string key is typed twice in the package. ``N`` cells, ``G`` genes, ``E`` edges, ``M`` niches.
"""

# AnnData ----------------------------------------------------------------------------------------
SPATIAL = "spatial"
"""``obsm``: cell centres in µm, ``[N, 2]`` as (x, y)."""
COUNTS = "counts"
"""``layers``: raw counts, ``[N, G]``."""
CONNECTIVITIES = "spatial_connectivities"
"""``obsp``: 1 where two cells are connected, ``[N, N]``, as squidpy names it."""
DISTANCES = "spatial_distances"
"""``obsp``: distance of connected cells in µm, ``[N, N]``, as squidpy names it."""
SLIDE_ID = "slide_id"
"""``obs``: the physical section a cell was measured on."""
GENE_IDS = "gene_ids"
"""``var``: Ensembl ids, ``[G]``."""
UNS = "spatiagraph"
"""``uns``: arguments, seed, version, panel coverage and content hash of a run."""


def embedding_key(name: str, level: str = "cell") -> str:
    """Name of the ``obsm`` slot of an embedding.

    Args:
        name: Short name of the model, such as ``"context"``.
        level: ``"cell"``, or the name of a level such as ``"niche"``.

    Examples:
        >>> embedding_key("spatia"), embedding_key("spatia", "niche")
        ('X_spatia', 'X_spatia_niche')
    """
    return f"X_{name}" if level == "cell" else f"X_{name}_{level}"


def start_name(name: str) -> str:
    """Name of the embeddings of a model before training, which stand beside those of after it.

    No name that begins as that of the model does: its slots would be taken for vectors of it.

    Args:
        name: Short name of the model.

    Examples:
        >>> embedding_key(start_name("context"), "niche")
        'X_start_context_niche'
    """
    return f"start_{name}"


def group_key(name: str, level: str) -> str:
    """Name of the ``obs`` column that holds the group of each cell at a level.

    Apart from the user's own columns: a model called ``"context"`` never writes ``obs["niche"]``.

    Args:
        name: Short name of the model.
        level: Name of a level such as ``"niche"``, or ``"domain"``.

    Examples:
        >>> group_key("context", "tissue")
        'context_tissue'
    """
    return f"{name}_{level}"
