"""Tables with a row for each cell: proteins or types, however they are written."""

import gzip

import numpy as np
import pandas as pd
import pytest

import spatiagraph as sg
from spatiagraph.data.read.dialect import dialect_of
from spatiagraph.data.read.tables import read_table

RNG = np.random.default_rng(0)
POS = RNG.uniform(0, 1, (150, 2)) * (250, 200)
VALUES = RNG.gamma(2, 3, (150, 3)).round(4)
MARKERS = ["CD3", "HLA-DR", "Ki67"]


def table(x="x", y="y", **more):
    found = pd.DataFrame(VALUES, columns=MARKERS)
    found.insert(0, y, POS[:, 1])
    found.insert(0, x, POS[:, 0])
    found.insert(0, "CellID", np.arange(150) + 1)
    return found.assign(**more)


def opened(path, **options):
    """The slide of a table of proteins, which says what it takes for proteins."""
    with pytest.warns(UserWarning, match="are taken for proteins"):
        return sg.read(path, kind="protein", mpp=1, **options)


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.tsv", "c.txt", "c.parquet"])
@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_intensities_of_a_table_are_a_slide_however_its_fields_are_parted(tmp_path, name, sep):
    path = tmp_path / name
    if name.endswith("parquet"):
        table().to_parquet(path)
    else:
        table().to_csv(path, sep=sep, index=False)
    slide = opened(path)
    assert slide.symbols == MARKERS
    assert slide.adata.obs_names[:2].tolist() == ["1", "2"]
    np.testing.assert_allclose(slide.pos, POS)
    np.testing.assert_allclose(slide.counts.toarray(), np.arcsinh(VALUES / 5), rtol=1e-5)


def test_decimal_commas_are_numbers(tmp_path):
    table().to_csv(tmp_path / "c.csv", sep=";", decimal=",", index=False)
    assert dialect_of(tmp_path / "c.csv") == (";", ",", None)
    np.testing.assert_allclose(opened(tmp_path / "c.csv").pos, POS)


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        (["1,234", "12,5", "7"], (",", None)),  # fractions of other lengths
        (["0,123", "1,234", "2,345"], (",", None)),  # no thousand begins with 0
        (["1,234", "1234", "2,345"], (",", None)),  # digits are not grouped
        (["1,234", "999", "12,345"], (".", ",")),  # counts on from 999
        (["1,234,567", "2,345", "3,456"], (".", ",")),
        (["1,234.5", "999.5", "2,345"], (".", ",")),
        (["1.234", "0.5", "2"], (".", None)),
        (["1234", "999", "5"], (".", None)),
    ],
)
def test_commas_are_of_fractions_or_of_thousands_by_the_other_numbers(tmp_path, values, marks):
    rows = "".join(f"c{i}\t{value}\n" for i, value in enumerate(values))
    (tmp_path / "c.tsv").write_text("cell\tvalue\n" + rows)
    assert dialect_of(tmp_path / "c.tsv") == ("\t", *marks)
    decimal, thousands = marks
    numbers = [v.replace(thousands or "_", "").replace(decimal, ".") for v in values]
    np.testing.assert_array_equal(
        read_table(tmp_path / "c.tsv")["value"], np.array(numbers, dtype=float)
    )


@pytest.mark.parametrize("values", [["1,234", "2,345"], ["1,234", "999", "1000"]])
def test_commas_that_may_be_of_fractions_or_thousands_are_refused(tmp_path, values):
    path = tmp_path / "c.tsv"
    path.write_text("x\ty\tCD3\n" + "".join(f"{i}\t{i}\t{v}\n" for i, v in enumerate(values)))
    with pytest.raises(ValueError, match=r"in c\.tsv: 1,234 may be 1234 or 1\.234: write"):
        sg.read(path, kind="protein", markers=["CD3"], mpp=1)


def test_thousands_of_a_table_are_intensities(tmp_path):
    grouped = table()
    whole = (1000 * VALUES).round()
    for number, marker in enumerate(MARKERS):
        grouped[marker] = [f"{value:,.0f}" for value in whole[:, number]]
    grouped.to_csv(tmp_path / "c.tsv", sep="\t", index=False)
    np.testing.assert_allclose(
        opened(tmp_path / "c.tsv").counts.toarray(), np.arcsinh(whole / 5), rtol=1e-5
    )


@pytest.mark.parametrize("name", ["C.CSV", "c.Tsv", "C.PARQUET", "c.csv.GZ"])
def test_capital_letters_of_a_suffix_mean_the_same(tmp_path, name):
    path = tmp_path / name
    if name.endswith("PARQUET"):
        table().to_parquet(path)
    else:
        table().to_csv(path, index=False, compression="gzip" if name.endswith("GZ") else None)
    assert opened(path).symbols == MARKERS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.encode("utf-16"), "in c.csv: it is UTF-16: save it as UTF-8"),
        (lambda text: text.replace("CD3", "ÄD3").encode("latin-1"), "byte 0xc4.*save it as UTF-8"),
        (lambda text: b"# of a program\n" + text.encode(), "begins with '# of a program': delete"),
        (lambda text: b"sep=,\n" + text.encode(), "begins with 'sep=,': delete"),
        (lambda text: text.splitlines()[0].encode(), "a row for each cell in c.csv, got none"),
    ],
)
def test_text_that_is_whole_is_not_called_damaged(tmp_path, change, words):
    (tmp_path / "c.csv").write_bytes(change(table().to_csv(index=False)))
    with pytest.raises(ValueError, match=words):
        sg.read(tmp_path / "c.csv", kind="protein", markers=MARKERS, mpp=1)


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz"])
def test_whether_a_table_is_gzipped_is_seen_by_its_content(tmp_path, name):
    text = table().to_csv(index=False).encode()
    (tmp_path / name).write_bytes(text if name.endswith("gz") else gzip.compress(text))
    assert opened(tmp_path / name).symbols == MARKERS


def test_marks_in_quotes_part_no_fields(tmp_path):
    (tmp_path / "c.csv").write_text('"a;b;c;d",x,y\n1,2,3\n')
    assert dialect_of(tmp_path / "c.csv") == (",", ".", None)


def test_a_row_that_is_not_seen_whole_tells_nothing(tmp_path):
    header = "\t".join(["x" * 99] * 655) + "\n"  # what is looked at ends in the next field
    (tmp_path / "c.tsv").write_text(header + "1" * 99 + "\t1" * 654 + "\n")
    assert 0 < 2**16 - len(header) < 99
    assert dialect_of(tmp_path / "c.tsv").sep == "\t"


def test_names_with_marks_in_them_part_no_fields(tmp_path):
    named = table().rename(columns={m: f"Cell|{m}|Mean" for m in MARKERS})
    named.to_csv(tmp_path / "c.csv", index=False)
    assert opened(tmp_path / "c.csv").symbols == [f"Cell|{m}|Mean" for m in MARKERS]


@pytest.mark.parametrize(
    ("x", "y"),
    [("X_centroid", "Y_centroid"), ("Centroid X µm", "Centroid Y µm"), ("XLoc", "YLoc"),
     ("centroid-1", "centroid-0"), ("CenterX_global_px", "CenterY_global_px")],
)  # fmt: skip
def test_places_are_found_by_what_programs_call_them(tmp_path, x, y):
    table(x, y).to_csv(tmp_path / "c.csv", index=False)
    np.testing.assert_allclose(opened(tmp_path / "c.csv").pos, POS)


def test_several_places_are_asked_for(tmp_path):
    table("Nucleus X", "Nucleus Y", **{"Cell X": 1.0, "Cell Y": 1.0}).to_csv(tmp_path / "c.csv")
    with pytest.raises(ValueError, match=r"got 2: pass x_key='Nucleus X' with y_key='Nucleus Y'"):
        sg.read(tmp_path / "c.csv", kind="protein")


def test_what_is_no_protein_stays_a_column(tmp_path):
    shapes = {"Area": 5.0, "MajorAxisLength": 4.0, "Eccentricity": 0.5, "ClusterID": 3}
    table(**shapes, Phenotype="T").to_csv(tmp_path / "c.csv", index=False)
    with pytest.warns(UserWarning, match=r"CD3, HLA-DR, Ki67 are taken.*Area, MajorAxisLength"):
        slide = sg.read(tmp_path / "c.csv", kind="protein", mpp=1)
    assert slide.symbols == MARKERS
    assert {*shapes, "Phenotype"} <= set(slide.adata.obs)


def test_proteins_that_are_named_are_taken(tmp_path):
    table(Area=5.0).to_csv(tmp_path / "c.csv", index=False)
    slide = sg.read(tmp_path / "c.csv", kind="protein", mpp=1, markers=["Ki67", "Area"])
    assert slide.symbols == ["Ki67", "Area"]
    with pytest.raises(ValueError, match=r"'CD4' in c\.csv.*Nearest: 'CD3'"):
        sg.read(tmp_path / "c.csv", kind="protein", mpp=1, markers=["CD4"])


def test_columns_without_a_unit_are_doubted(tmp_path):
    table(kind=np.resize(["a", "b"], 150)).to_csv(tmp_path / "c.csv", index=False)
    options = {"kind": "types", "type_key": "kind"}
    with pytest.warns(UserWarning, match="x and y of c.csv name no unit.*mpp=1 to confirm"):
        sg.read(tmp_path / "c.csv", **options)
    sg.read(tmp_path / "c.csv", mpp=1, **options)


def test_columns_that_name_no_axis_are_doubted_and_those_of_a_maker_are_not(tmp_path):
    options = {"kind": "types", "type_key": "kind"}
    table("cx", "cy", kind=np.resize(["a", "b"], 150)).to_csv(tmp_path / "c.csv", index=False)
    with pytest.warns(UserWarning, match="cx and cy of c.csv name no unit"):
        sg.read(tmp_path / "c.csv", x_key="cx", y_key="cy", **options)
    xenium = table("x_centroid", "y_centroid", kind=np.resize(["a", "b"], 150))
    xenium.to_csv(tmp_path / "x.csv", index=False)
    np.testing.assert_allclose(sg.read(tmp_path / "x.csv", **options).pos, POS)


@pytest.mark.parametrize("names", [("X_centroid", "Y_centroid"), ("Center_X", "Center_Y")])
def test_names_that_a_maker_of_um_spells_otherwise_are_doubted(tmp_path, names):
    """MCMICRO has pixels in X_centroid, Xenium µm in x_centroid."""
    table(*names, kind=np.resize(["a", "b"], 150)).to_csv(tmp_path / "c.csv", index=False)
    with pytest.warns(UserWarning, match="of c.csv name no unit and are taken as µm: pass mpp="):
        sg.read(tmp_path / "c.csv", kind="types", type_key="kind")


def test_numbers_of_sections_and_ages_are_no_proteins(tmp_path):
    table(section=1, Age=43, mouse=7, well=2).to_csv(tmp_path / "c.csv", index=False)
    assert opened(tmp_path / "c.csv").symbols == MARKERS


def test_a_table_of_proteins_says_how_it_is_read(tmp_path):
    table().to_csv(tmp_path / "c.csv")
    with pytest.raises(ValueError, match="if intensities of proteins, kind='protein'"):
        sg.read(tmp_path / "c.csv")


def test_features_of_an_anndata_are_chosen_too(tmp_path):
    table().to_csv(tmp_path / "c.csv", index=False)
    adata = opened(tmp_path / "c.csv").adata
    assert sg.read(adata, expression="normalized", markers=["Ki67", "CD3"]).symbols == [
        "Ki67",
        "CD3",
    ]
    with pytest.raises(ValueError, match=r"'CD8' of markers among 3.*Nearest: 'CD3'"):
        sg.read(adata, expression="normalized", markers=["CD8"])
