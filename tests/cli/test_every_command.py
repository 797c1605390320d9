"""Every command has help, and refuses at least three mistakes in one line each.

A new command fails here until it has its rows in ``REFUSED``; what commands do when all is well is
in ``test_commands.py``.
"""

import sys

import pytest
import typer

from spatiagraph.cli import app

COMMANDS = sorted(typer.main.get_command(app).commands)
LEAST = 3
ABSENT = "cuda" if sys.platform == "darwin" else "mps"

# command → (what is wrong, arguments, words of the message). {work} holds slide.h5ad, run and
# embedded.h5ad; {tmp} is empty but for a file called "file" and an unreadable slide "text.h5ad".
REFUSED = {
    "demo": [
        ("no such slide", "{tmp}/no.h5ad --out {tmp}/out", ["no.h5ad"]),
        ("no AnnData", "{tmp}/text.h5ad --out {tmp}/out", ["text.h5ad", "HDF5"]),
        ("no such labels", "{work}/slide.h5ad --labels layers --out {tmp}/out", ["'layers'"]),
        ("no such slot", "{work}/slide.h5ad --spatial-key xy --out {tmp}/out", ["obsm['xy']"]),
        (
            "no image to generate from",
            "{work}/slide.h5ad --states cell_type --transition type1:type2 --out {tmp}/out",
            ["an image", "'slide'"],
        ),
        ("no states", "{work}/slide.h5ad --transition a:b --out {tmp}/out", ["--states"]),
    ],
    "doctor": [
        ("no cohort", "{tmp}/folder", ["a cohort", "folder"]),
        ("no cells", "--cells 0", ["--cells"]),
        ("no genes", "--cells 1000 --genes 0", ["--genes"]),
        ("no number", "--cells many", ["--cells"]),
    ],
    "prepare": [
        ("no such slide", "{tmp}/no.h5ad --out {tmp}/a.zarr", ["no.h5ad"]),
        ("another suffix", "{work}/slide.h5ad --out {tmp}/a.csv", [".h5ad or .zarr", "a.csv"]),
        ("an empty folder", "{tmp}/folder", ["folder", "nothing in it"]),
        ("two scales", "{work}/slide.h5ad --mpp 1 --pitch-um 100", ["either mpp or pitch_um"]),
        ("no such image", "{work}/slide.h5ad --image {tmp}/he.png", ["he.png"]),
    ],
    "fit": [
        ("no such slide", "{tmp}/no.h5ad --out {tmp}/out", ["no.h5ad"]),
        ("a file for a folder", "{work}/slide.h5ad --out {tmp}/file", ["file"]),
        (
            "two slides of one name",
            "{work}/slide.h5ad {work}/slide.h5ad --out {tmp}/out",
            ["'slide'"],
        ),
        (
            "an option of another model",
            "{work}/slide.h5ad --out {tmp}/out --preset tiny",
            ["--preset", "spatia"],
        ),
        (
            "an option called otherwise than its argument",
            "{work}/slide.h5ad --out {tmp}/out --classify niche",
            ["--classify", "spatia"],
        ),
        (
            "an accelerator that is not there",
            f"{{work}}/slide.h5ad --out {{tmp}}/out --accelerator {ABSENT}",
            [f"'{ABSENT}'"],
        ),
    ],
    "domains": [
        ("no such slide", "{tmp}/no.h5ad", ["no.h5ad"]),
        ("a number and no file", "{work}/embedded.h5ad --k 3", ["--k and --out"]),
        (
            "a folder for one slide",
            "{work}/embedded.h5ad --k 3 --out {tmp}/folder",
            ["ends in .h5ad", "1 slides"],
        ),
        (
            "no such level",
            "{work}/embedded.h5ad --k 3 --method kmeans --embedding organ --out {tmp}/a.h5ad",
            ["'organ'", "niche"],
        ),
        (
            "a column of somebody else",
            "{work}/embedded.h5ad --k 3 --method kmeans --key cell_type --out {tmp}/a.h5ad",
            ["'cell_type'", "another key"],
        ),
        (
            "more domains than cells",
            "{work}/embedded.h5ad --k 9999 --out {tmp}/a.h5ad",
            ["300 cells", "9999"],
        ),
    ],
    "embed": [
        ("no such model", "{tmp}/folder {work}/slide.h5ad --out {tmp}/a.h5ad", ["config.json"]),
        ("no such slide", "{work}/run {tmp}/no.h5ad --out {tmp}/a.h5ad", ["no.h5ad"]),
        ("another suffix", "{work}/run {work}/slide.h5ad --out {tmp}/a.csv", [".h5ad", "a.csv"]),
        (
            "an output inside of a file",
            "{work}/run {work}/slide.h5ad --out {tmp}/file/a.h5ad",
            ["file"],
        ),
        (
            "a device that is not there",
            "{work}/run {work}/slide.h5ad --out {tmp}/a.h5ad --device cuda:99",
            ["'cuda:99'"],
        ),
        (
            "no device",
            "{work}/run {work}/slide.h5ad --out {tmp}/a.h5ad --device gpu",
            ["'gpu'", "cpu, cuda"],
        ),
    ],
    "merge": [
        ("no such cohort", "{tmp}/no.zarr", ["no.zarr", "there is nothing"]),
        ("a folder of another kind", "{tmp}/folder", ["Expected shards in", "folder"]),
        ("a slide", "{work}/slide.h5ad", ["Expected shards in", "slide.h5ad"]),
    ],
    "index": [
        ("no such cohort", "{tmp}/no.zarr --out {tmp}/out", ["no.zarr", "there is nothing"]),
        ("a slide", "{work}/slide.h5ad --out {tmp}/out", ["a cohort", "slide.h5ad"]),
        ("no such shard", "{tmp}/no.zarr --out {tmp}/out --shard 2/2", ["0/2 to 1/2", "2/2"]),
    ],
    "generate": [
        (
            "no transition",
            "{work}/embedded.h5ad --states cell_type --transition type1 --out {tmp}/out",
            ["control:target", "'type1'"],
        ),
        (
            "a slide without embeddings",
            "{work}/slide.h5ad --states cell_type --transition type1:type2 --out {tmp}/out",
            ["spatiagraph embed"],
        ),
        (
            "a slide without image",
            "{work}/embedded.h5ad --states cell_type --transition type1:type2 --out {tmp}/out",
            ["an image", "'slide'"],
        ),
        (
            "no such generator",
            "{work}/embedded.h5ad --transition type1:type2 "
            "--generator {tmp}/folder --out {tmp}/out",
            ["config.json"],
        ),
    ],
    "morphology": [
        ("no such slide", "{tmp}/no.h5ad --out {tmp}/out", ["no.h5ad"]),
        ("no image", "{work}/slide.h5ad --out {tmp}/out", ["an image", "'slide'"]),
        ("no such nuclei", "{work}/slide.h5ad --nuclei pink --out {tmp}/out", ["--nuclei", "dark"]),
        ("a window of nothing", "{work}/slide.h5ad --window-um 0 --out {tmp}/out", ["--window-um"]),
    ],
    "colocalize": [
        ("no such table", "{tmp}/no.parquet --out {tmp}/out", ["no.parquet"]),
        ("no table", "{tmp}/text.h5ad --out {tmp}/out", [".parquet", "text.h5ad"]),
        ("a folder without molecules", "{tmp}/folder --out {tmp}/out", ["detected_transcripts"]),
        ("groups of no cells", "{tmp}/file --groups niche --out {tmp}/out", ["--cells"]),
        (
            "no such groups",
            "{tmp}/file --cells {work}/slide.h5ad --groups nich --out {tmp}/out",
            ["--groups", "'nich'", "'niche'"],
        ),
    ],
    "perturb": [
        (
            "no such model",
            "{tmp}/folder {work}/slide.h5ad --types cell_type --first a --second b --out {tmp}/out",
            ["config.json"],
        ),
        (
            "a model of single cells",
            "{work}/run {work}/slide.h5ad --types cell_type --first a --second b --out {tmp}/out",
            ["spatialformer", "context"],
        ),
        (
            "no such types",
            "{work}/run {work}/slide.h5ad --types cell --first a --second b --out {tmp}/out",
            ["--types", "'cell'", "'cell_type'"],
        ),
        (
            "a single pair",
            "{work}/run {work}/slide.h5ad --types cell_type --first a --second b --num-pairs 1 "
            "--out {tmp}/out",
            ["--num-pairs"],
        ),
    ],
    "search": [
        ("no such file", "{tmp}/no.h5ad --cell cell1", ["no.h5ad"]),
        ("no embeddings", "{work}/slide.h5ad --cell cell1", ["spatiagraph embed"]),
        ("no such cell", "{work}/embedded.h5ad --cell Cell1", ["'Cell1'", "cell1"]),
    ],
    "report": [
        ("no such file", "{tmp}/no.h5ad --out {tmp}/a.html", ["no.h5ad"]),
        ("no embeddings", "{work}/slide.h5ad --out {tmp}/a.html", ["spatiagraph embed"]),
        ("another suffix", "{work}/embedded.h5ad --out {tmp}/a.pdf", [".html", "a.pdf"]),
        (
            "labels that mean nothing",
            "{work}/embedded.h5ad --labels neighbor_label --unlabelled few --out {tmp}/a.html",
            ["two labels or more", "'neighbor_label'", "got 1"],
        ),
        (
            "no run",
            "{work}/embedded.h5ad --run {tmp}/folder --out {tmp}/a.html",
            ["run.json"],
        ),
    ],
    "evaluate": [
        ("no such file", "{tmp}/no.h5ad --domains niche", ["no.h5ad"]),
        ("nothing to compare with", "{work}/embedded.h5ad", ["'domains' or 'types'"]),
        ("no such labels", "{work}/embedded.h5ad --domains layer", ["'layer'", "niche"]),
        (
            "no such embedding",
            "{work}/embedded.h5ad --domains niche --embedding X_novae",
            ["'X_novae'", "X_context"],
        ),
        ("no seeds", "{work}/embedded.h5ad --domains niche --seeds 0", ["--seeds"]),
        ("another suffix", "{work}/embedded.h5ad --domains niche --out {tmp}/a.pdf", [".csv"]),
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does(run, command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Usage:" in done.stdout
    assert "Options" in done.stdout


def test_every_command_has_mistakes_that_it_refuses():
    few = {name for name in COMMANDS if len(REFUSED.get(name, ())) < LEAST}
    assert not few, f"add {LEAST} mistakes to REFUSED for {', '.join(sorted(few))}"
    assert REFUSED.keys() <= set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        pytest.param(command, arguments, words, id=f"{command}: {name}")
        for command, rows in REFUSED.items()
        for name, arguments, words in rows
    ],
)
def test_a_mistake_is_refused_in_one_line(run, workplace, tmp_path, command, arguments, words):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.h5ad").write_text("cells")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    done = run(command, *(a.format(work=workplace, tmp=tmp_path) for a in arguments.split()))
    assert done.exit_code != 0, done.output
    assert "Traceback" not in done.output
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    text = said[0] if said else " ".join(done.stderr.split())  # options are refused in a box
    assert len(said) <= 1
    for word in words:
        assert word in text
    assert sorted(p.name for p in tmp_path.rglob("*")) == before  # nothing half-written
