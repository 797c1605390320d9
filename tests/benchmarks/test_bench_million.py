"""A million cells from counts to a report on one laptop: time and memory of every step.

``OMP_NUM_THREADS=2 pytest -m benchmark -s tests/benchmarks/test_bench_million.py`` prints a line
per step; five minutes and 11 GB on two cores.
"""

import resource
import time

import pytest

import spatiagraph as sg

pytestmark = pytest.mark.benchmark


def test_a_million_cells_on_one_page(tmp_path, capsys):
    start = time.perf_counter()

    def say(step):
        nonlocal start
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        with capsys.disabled():
            print(f"\n{step}: {time.perf_counter() - start:.0f} s, peak {peak_gb:.1f} GB so far")
        start = time.perf_counter()

    slide = sg.make_tissue(1_000_000, num_genes=300, image=None, seed=0)
    say("tissue")
    model = sg.models.ContextModel.for_slides([slide], seed=0)
    say("model")
    sg.fit(model, [slide], max_epochs=1, progress=False)
    say("one epoch")
    sg.embed(model, slide, progress=False)
    say("embed")
    done = sg.report_slide(slide, tmp_path / "report.html", model=model)
    say("domains, index and report")
    assert done.path.stat().st_size < 10e6
