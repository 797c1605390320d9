"""Names of the genes of an AnnData: symbols, and ids of Ensembl, FlyBase, WormBase or NCBI."""

import re

import pandas as pd

from spatiagraph import keys

ENSEMBL = re.compile(r"^ENS[A-Z]*\d{6,}(\.\d+)?$")
"""Id of Ensembl, maybe with its version."""

_ID = re.compile(r"^(ENS[A-Z]*\d{6,}(\.\d+)?|FBgn\d{7}|WBGene\d{8}|\d+)$")
_ID_COLUMNS = (keys.GENE_IDS, "gene_id", "ensembl_id", "ensembl", "feature_id")
_SYMBOL_COLUMNS = (
    "symbol", "symbols", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "feature_name",
    "feature_names", "hgnc_symbol", "mgi_symbol", "hgnc", "mgi", "external_gene_name",
    "gene_short_name", "original_gene_symbols", "gene", "genes", "name", "feature", "features",
)  # fmt: skip
_LIKE_SYMBOLS = re.compile(r"gene|symbol|name|feature|hgnc|mgi", re.IGNORECASE)
_SYMBOL = re.compile(r"^[A-Za-z][\w.()/@-]{0,29}$")
_GENOME = re.compile(r"^(GRCh\d+|GRCm\d+|hg\d+|mm\d+|rn\d+|human|mouse)_+(?=.)", re.IGNORECASE)
_MISSING = {"", "na", "none", "<na>", "n/a", "null", "-", "."}
_NAN = "nan"  # also a gene of the fly


def gene_symbols(var: pd.DataFrame) -> list[str]:
    """Symbols of genes, ``[G]``.

    They are the names of the rows, unless most of those are ids: then the first column that is
    called like symbols and holds some, as CELLxGENE's ``feature_name``. A gene without a symbol
    keeps its id, without version.

    Args:
        var: Table of the genes, ``adata.var``.

    Examples:
        >>> ids = ["ENSG00000075624.17", "ENSG00000170421.3"]
        >>> gene_symbols(pd.DataFrame({"feature_name": ["ACTB", None]}, index=ids))
        ['ACTB', 'ENSG00000170421']
    """
    names = var.index.astype(str).str.strip().str.replace(_GENOME, "", regex=True)
    is_id = names.str.match(_ID)
    if not len(names) or is_id.mean() <= 0.5:
        return names.tolist()
    ids = names.map(strip_version)
    known = _columns(var, _SYMBOL_COLUMNS)
    for column in [*known, *_like_symbols(var, known)]:
        symbols = _known(var[column], ids)
        if (symbols.notna() & ~symbols.astype(str).str.match(_ID)).any():
            return symbols.where(symbols.notna(), ids.to_numpy()).astype(str).tolist()
    return ids.tolist()


def gene_ids(var: pd.DataFrame) -> list[str] | None:
    """Ensembl ids without version, ``[G]``, empty for a gene without; ``None`` where none has one.

    Args:
        var: Table of the genes, ``adata.var``.
    """
    names = var.index.to_series().astype(str)
    for ids in [*(var[c] for c in _columns(var, _ID_COLUMNS)), names]:
        known = ids.where(ids.notna(), "").astype(str)
        if known.str.match(ENSEMBL).any():
            return known.map(strip_version).tolist()
    return None


def strip_version(gene_id: str) -> str:
    """An id of Ensembl without its version; other names as they are.

    Examples:
        >>> strip_version("ENSG00000075624.17"), strip_version("HLA.1")
        ('ENSG00000075624', 'HLA.1')
    """
    return re.sub(r"\.\d+$", "", gene_id) if ENSEMBL.match(gene_id) else gene_id


def _columns(var: pd.DataFrame, names: tuple[str, ...]) -> list[str]:
    """Columns called so, whatever their case and what parts their words, in order of the names."""
    by_name = {_letters(c): c for c in reversed(var.columns)}
    return [by_name[_letters(n)] for n in names if _letters(n) in by_name]


def _letters(name: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _like_symbols(var: pd.DataFrame, known: list[str]) -> list[str]:
    """Other columns that are called like symbols in part, and whose values look like such."""
    return [
        column
        for column in var
        if isinstance(column, str) and column not in known and _LIKE_SYMBOLS.search(column)
        and not pd.api.types.is_numeric_dtype(var[column])
        and (text := var[column].dropna().astype(str)).nunique() > 0.8 * len(var)
        and text.str.match(_SYMBOL).mean() > 0.8
    ]  # fmt: skip


def _known(values: pd.Series, ids: pd.Index) -> pd.Series:
    """Symbols as text, missing where the table says so in one of many ways."""
    text = values.astype(object).where(values.notna(), None)
    text = text.map(lambda v: None if v is None else _GENOME.sub("", str(v).strip()))
    lower = text.map(lambda v: "" if v is None else v.lower())
    # 'nan' is nanchung where ids are not those of vertebrates, and it stands there once
    is_gene = (lower == _NAN) & ~ids.str.match(ENSEMBL) & ((lower == _NAN).sum() == 1)
    return text.mask(lower.isin(_MISSING) | ((lower == _NAN) & ~is_gene), None)
