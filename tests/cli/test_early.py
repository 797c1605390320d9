"""Cheap checks come first: what is wrong is refused before anything heavy is imported."""

import json
import os
import subprocess
import sys

import pytest

from spatiagraph.cli.wording import as_typed, cut_lists
from spatiagraph.data.places import could_be_slide

HEAVY = ("torch", "lightning", "torch_geometric", "anndata", "sklearn", "matplotlib", "pandas")
PROBE = """
import contextlib, io, json, sys, time
from spatiagraph.cli import app
said, start = [], time.process_time()
for arguments in json.loads(sys.argv[1]):
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard):
        try:
            app(arguments)
        except SystemExit as done:
            said.append([done.code, heard.getvalue()])
heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps([said, heavy, time.process_time() - start]))
"""


@pytest.fixture(scope="module")
def refused(workplace, tmp_path_factory):
    """What each of some wrong commands says, all in one process, and what that process imported."""
    folder = tmp_path_factory.mktemp("early")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "he.png").write_text("")
    slide, embedded = str(workplace / "slide.h5ad"), str(workplace / "embedded.h5ad")
    out = str(folder / "out")
    wrong = {
        "nothing there": ["fit", str(folder / "none.h5ad"), "--out", out],
        "wrong folder": ["demo", str(folder / "pictures"), "--out", out],
        "folder of slides": ["prepare", str(workplace)],
        "missing image": ["fit", slide, "--image", str(folder / "no.png"), "--out", out],
        "image of one slide": ["fit", slide, embedded, "--image", slide, "--out", out],
        "wrong column": ["demo", slide, "--labels", "nich", "--out", out],
        "wrong states": ["generate", embedded, "--states", "cel_type", "--transition", "a:b",
                         "--out", out],
        "no such domains": ["evaluate", embedded, "--domains", "zzz"],
        "no such labels": ["report", embedded, "--labels", "niches"],
        "no run": ["report", embedded, "--run", str(folder)],
        "no model": ["embed", str(folder), slide, "--out", f"{out}.h5ad"],
        "nothing asked": ["search", embedded],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(list(wrong.values())), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
    )
    said, heavy, seconds = json.loads(done.stdout.splitlines()[-1])
    return dict(zip(wrong, said, strict=True)), heavy, seconds


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("nothing there", ["found nothing at", "none.h5ad"]),
        ("wrong folder", ["pictures", "he.png", "counts and coordinates"]),
        ("folder of slides", ["slide.h5ad", "Pass one of them"]),
        ("missing image", ["image of slide.h5ad", "no.png"]),
        ("image of one slide", ["--image for each of 2 slides, got 1"]),
        ("wrong column", ["--labels", "'nich'", "Nearest: 'niche'"]),
        ("wrong states", ["--states", "'cel_type'", "Nearest: 'cell_type'"]),
        ("no such domains", ["--domains", "'zzz'", "There are", "niche"]),
        ("no such labels", ["--labels", "'niches'", "'niche'"]),
        ("no run", ["run.json"]),
        ("no model", ["config.json"]),
        ("nothing asked", ["--cell, --region, --niche or --query"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(refused, case, words):
    code, said = refused[0][case]
    assert code == 1, said
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    for word in words:
        assert word in lines[0]


def test_nothing_heavy_is_imported_to_refuse(refused):
    assert refused[1] == []


def test_folders_that_readers_know_could_be_slides(tmp_path):
    for number, name in enumerate((
        "spatial/tissue_positions_list.csv", "experiment.xenium", "cell_by_gene.csv",
        "region_0_detected_transcripts.csv", "Lung_exprMat_file.csv.gz", "zarr.json",
        "outs/spatial/scalefactors_json.json", "outs/x_cell_segmentations.geojson",
    )):  # fmt: skip
        place = tmp_path / str(number) / name
        place.parent.mkdir(parents=True)
        place.write_text("")
        assert could_be_slide(tmp_path / str(number)), name
    assert not could_be_slide(tmp_path)


def test_every_real_folder_could_be_a_slide(real_data):
    folders = [p for p in (real_data / "vendor_folders").iterdir() if p.is_dir()]
    known = [f for f in folders if could_be_slide(f) or any(map(could_be_slide, f.iterdir()))]
    assert known == folders


OPTIONS = {"mpp": False, "image_mpp": False, "origin_um": False, "drop_empty": True, "image": False}


@pytest.mark.parametrize(
    ("told", "typed"),
    [
        ("pass mpp=0.5", "pass --mpp 0.5"),
        ("Pass mpp=… to read.", "Pass --mpp … to read."),
        ("pass image_mpp=0.2 and origin_um=(1, 2)", "pass --image-mpp 0.2 and --origin-um 1 2"),
        ("drop_empty=True, or not", "--drop-empty, or not"),
        ("read it with image=False.", "read it with --no-image."),
        ("obs['mpp=3'] and other_mpp=4", "obs['mpp=3'] and other_mpp=4"),
    ],
)
def test_arguments_of_python_are_said_as_they_are_typed(told, typed):
    assert as_typed(told, OPTIONS) == typed


def test_long_lists_are_cut_and_short_ones_are_not():
    names = [f"'column {i}'" for i in range(40)]
    assert cut_lists(f"found {', '.join(names)}. Pass one") == (
        f"found {', '.join(names[:8])} and 32 more. Pass one"
    )
    few = "found a, b, c, d, e, f"
    assert cut_lists(few) == few


@pytest.mark.parametrize("kind", ["text that HDF5 would walk for ever", "a pipe"])
def test_a_look_at_the_columns_ends_whatever_the_file_is(workplace, tmp_path, kind):
    path = tmp_path / "embedded.h5ad"
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        content = bytearray((workplace / "embedded.h5ad").read_bytes())
        heap = content.find(b"GCOL\x01\0\0\0")
        assert heap > 0
        while heap > 0:
            size = int.from_bytes(content[heap + 8 : heap + 16], "little")
            content[heap + 16 : heap + size] = bytes(size - 16)
            heap = content.find(b"GCOL\x01\0\0\0", heap + size)
        path.write_bytes(content)
    line = [sys.executable, "-c", "from spatiagraph.cli import app; app()", "evaluate", str(path)]
    done = subprocess.run(
        [*line, "--domains", "niche"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert [text for text in done.stderr.splitlines() if text.startswith("error: Expected")]
