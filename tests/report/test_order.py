"""Order of domains on the page."""

import pandas as pd

from spatiagraph.data import make_tissue
from spatiagraph.report.compose import slide_page


def test_domain_10_stands_after_domain_9():
    slide = make_tissue(220, num_genes=40, image=None, seed=0)
    domains = pd.Series([str(i % 11 + 1) for i in range(220)])
    page = slide_page(slide, domains={"domains": domains}, max_interactive=0).html()
    markers = page[page.index("Dot plot of the marker genes of the domains.") :][:2000]
    order = [n for n in map(str, range(1, 12)) if f" {n}: " in markers]
    assert len(order) > 5
    assert order == sorted(order, key=lambda name: markers.index(f" {name}: "))
