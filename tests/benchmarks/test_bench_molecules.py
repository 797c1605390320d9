"""Molecules at scale: a table of 50 million rows filtered, tested and cut into windows.

``pytest -m benchmark -s tests/benchmarks/test_bench_molecules.py`` prints a line per step. The
table is made in pieces below the folder of temporary files (1 GB, and as much again for results).
Each step runs in a process of its own, so that its memory is its own.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spatiagraph.data.molecules import Molecules

pytestmark = pytest.mark.benchmark
ROWS, GENES, PIECE = 50_000_000, 400, 2_000_000
CELLS_A_SIDE = int((ROWS / 200) ** 0.5)


def write_table(path, rows=ROWS):
    """Cells of 10 µm on a grid, 200 molecules each on average, in the columns of Xenium."""
    rng = np.random.default_rng(0)
    genes = pa.array(
        [f"GENE{i:03d}" for i in range(GENES - 20)] + [f"BLANK_{i}" for i in range(20)]
    )
    share = rng.lognormal(0, 1.2, GENES)
    share[-20:] = share[:-20].min()
    share /= share.sum()
    writer = None
    for first in range(0, rows, PIECE):
        num = min(PIECE, rows - first)
        cell = rng.integers(0, CELLS_A_SIDE**2, num)
        centre = np.stack(np.divmod(cell, CELLS_A_SIDE), axis=1) * 12.0
        pos = (centre + rng.normal(0, 2.5, (num, 2))).astype(np.float32)
        outside = rng.random(num) < 0.15
        names = pa.DictionaryArray.from_arrays(
            pa.array(np.where(outside, CELLS_A_SIDE**2, cell).astype(np.int32)), CELL_NAMES
        )
        gene = pa.DictionaryArray.from_arrays(
            pa.array(rng.choice(GENES, num, p=share).astype(np.int16)), genes
        )
        table = pa.table(
            {
                "transcript_id": pa.array(np.arange(first, first + num)),
                "cell_id": names,
                "feature_name": gene,
                "x_location": pos[:, 0],
                "y_location": pos[:, 1],
                "z_location": rng.uniform(0, 20, num).astype(np.float32),
                "qv": rng.choice([40.0, 30.0, 12.0], num, p=[0.7, 0.15, 0.15]).astype(np.float32),
            }
        )
        writer = pq.ParquetWriter(path, table.schema) if writer is None else writer
        writer.write_table(table, row_group_size=PIECE)
    writer.close()


CELL_NAMES = pa.array([*(f"cell{i:06d}-1" for i in range(CELLS_A_SIDE**2)), "UNASSIGNED"])

MEASURED = """
import json, re, time
from pathlib import Path
def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
{imports}
Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
before, start = memory("VmRSS"), time.perf_counter()
{code}
seconds = time.perf_counter() - start
found = {{"seconds": seconds, "before": before, "peak": memory("VmHWM"), "result": result}}
print(json.dumps(found))
"""


def measured(imports, code):
    """Run a step in a process of its own: seconds, and peak memory in GB."""
    text = MEASURED.format(imports=imports, code=code)
    own = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # the other keeps what it frees
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("molecules") / "transcripts.parquet"
    write_table(path)
    yield path
    path.unlink()


def test_fifty_million_molecules_are_filtered_and_tested_in_two_gigabytes(table, tmp_path, capsys):
    out = tmp_path / "sorted.parquet"
    step = measured(
        "from spatiagraph.data.colocalization import sort_molecules",
        f"result = sort_molecules(Path({str(table)!r}), Path({str(out)!r})).to_dict()",
    )
    with capsys.disabled():
        print(f"\nfiltered and sorted: {ROWS / step['seconds'] / 1e6:.2f} million rows/s, "
              f"{step['peak']:.2f} GB ({step['before']:.2f} of it imports)")  # fmt: skip
        print(step["result"])
    assert step["peak"] < 2
    step = measured(
        "from spatiagraph.data.colocalization import Colocalization, SortedMolecules, "
        "find_gene_pairs",
        f"molecules = SortedMolecules({str(out)!r})\n"
        "found = find_gene_pairs(molecules, Colocalization(2.0), num_draws=2)\n"
        "result = (molecules.num_molecules, molecules.num_cells, len(found.pairs.pairs))",
    )
    molecules, cells, pairs = step["result"]
    with capsys.disabled():
        print(f"pairs and two draws of both nulls: {cells / step['seconds']:,.0f} cells/s of "
              f"{cells:,} cells, {molecules:,} molecules, {pairs:,} pairs, "
              f"{step['peak']:.2f} GB")  # fmt: skip
    assert step["peak"] < 2


def test_a_window_of_fifty_million_molecules(table, tmp_path, capsys):
    out = tmp_path / "tiles.parquet"
    step = measured(
        "from spatiagraph.data.molecules import Molecules",
        f"result = Molecules.create({str(out)!r}, {str(table)!r}).num_tiles",
    )
    with capsys.disabled():
        print(f"\ntiled: {ROWS / step['seconds'] / 1e6:.2f} million rows/s, {step['peak']:.2f} GB, "
              f"{step['result']:,} tiles")  # fmt: skip
    assert step["peak"] < 2
    step = measured(
        "from spatiagraph.data.molecules import Molecules",
        f"result = len(Molecules({str(out)!r}).window(3000, 3000, 3140, 3140))",
    )
    with capsys.disabled():
        print(f"a window of {step['result']:,} molecules: {step['seconds']:.3f} s, "
              f"{1024 * (step['peak'] - step['before']):.0f} MB")  # fmt: skip
    assert step["peak"] - step["before"] < 0.1


@pytest.mark.parametrize("region", ["roi_islet", "roi_tumour"])
def test_windows_of_real_tissue_beside_the_whole_table(real_data, tmp_path, capsys, region):
    """A window against reading the table of the machine and cutting it, libraries warm in both."""
    source = real_data / "xenium_pancreas" / region / "transcripts.parquet"
    out = tmp_path / "tiles.parquet"
    start = time.perf_counter()
    molecules = Molecules.create(out, source)
    created = time.perf_counter() - start
    x, y = (float(np.median(molecules.bounds_um[:, at : at + 2])) for at in (0, 2))
    box = (x - 100, y - 100, x + 100, y + 100)
    small = tmp_path / "small.parquet"
    pq.write_table(pq.read_table(source).slice(0, 1000), small)
    Molecules.create(tmp_path / "small_tiles.parquet", small)
    warm = (
        "from spatiagraph.data.molecules import Molecules\n"
        "from spatiagraph.data.read.molecules import read_any_molecules\n"
        f"first = Molecules({str(tmp_path / 'small_tiles.parquet')!r})\n"
        "x, _, y, _ = first.bounds_um[0]\n"
        "first.window(x, y, x + 5, y + 5)\n"
        f"read_any_molecules(Path({str(small)!r}))"
    )
    ours = measured(warm, f"result = len(Molecules({str(out)!r}).window(*{box}))")
    whole = measured(
        warm,
        f"m = read_any_molecules(Path({str(source)!r}))\n"
        "x, y = m['x_um'], m['y_um']\n"
        f"x0, y0, x1, y1 = {box}\n"
        "result = len(m[(x >= x0) & (x < x1) & (y >= y0) & (y < y1)])",
    )
    memory = [1024 * (step["peak"] - step["before"]) for step in (ours, whole)]
    with capsys.disabled():
        print(f"\n{region}, {molecules.num_molecules:,} molecules: tiled in {created:.1f} s; a "
              f"window of {ours['result']:,}: {memory[0]:.1f} and {memory[1]:.1f} MB "
              f"({memory[1] / memory[0]:.0f}x), {ours['seconds']:.3f} and {whole['seconds']:.3f} s "
              f"({whole['seconds'] / ours['seconds']:.0f}x)")  # fmt: skip
    assert ours["result"] == whole["result"]
