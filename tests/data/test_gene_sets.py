"""Gene sets of GMT files."""

import os
from pathlib import Path

import pytest

from spatiagraph.data.gene_sets import read_gmt, union_of

HALLMARK = "gene_tables/hallmark_v7.0_symbols.gmt"


def test_sets_keep_their_order_and_the_union_is_sorted(tmp_path):
    file = tmp_path / "sets.gmt"
    file.write_text("B\tfirst\tMYC\tAKT1\tMYC\n\nA\t\tTP53\t\tAKT1\n", encoding="utf-8")
    sets = read_gmt(file)
    assert sets == {"B": ("MYC", "AKT1"), "A": ("TP53", "AKT1")}
    assert union_of(sets) == ["AKT1", "MYC", "TP53"]


def test_a_mark_of_the_order_of_bytes_is_no_part_of_a_name(tmp_path):
    file = tmp_path / "sets.gmt"
    file.write_bytes(b"\xef\xbb\xbfA\t\tMYC\nB\t\tTP53\n")
    assert read_gmt(file) == {"A": ("MYC",), "B": ("TP53",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"A\tset\n", "genes between tabs in line 1 .* got 'A\\\\tset'"),
        (b"A B C\n", "genes between tabs in line 1"),
        (b"A\t\tMYC\nA\t\tTP53\n", "each set once .* 'A' again in 2"),
        (b"\n", "gene sets in .* got none"),
        (b"\xb5\t\tMYC", "byte 0xb5"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, text, message):
    file = tmp_path / "sets.gmt"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_gmt(file)


def test_the_hallmark_sets_are_the_published_width():
    """The 50 hallmark sets have 7,322 entries and 4,384 genes, as many as ST-Align reads."""
    folder = os.environ.get("SPATIAGRAPH_DATA")
    if not folder or not (Path(folder) / HALLMARK).is_file():
        pytest.skip(f"real data: set SPATIAGRAPH_DATA to a folder with {HALLMARK}")
    sets = read_gmt(Path(folder) / HALLMARK)
    assert len(sets) == 50
    assert sum(map(len, sets.values())) == 7322
    assert len(union_of(sets)) == 4384
