"""Every gene encoder × image encoder × fusion × context encoder, and the complete model."""

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch_geometric.data import Batch
from torch_geometric.nn import GATv2Conv, GraphConv

from spatiagraph.data import GenePanel, make_tissue, to_data
from spatiagraph.data.convert import SlideToGraph
from spatiagraph.graph.edges import plain_edges
from spatiagraph.models import ContextEncoder, ContextModel
from spatiagraph.nn import (
    CellEncoder,
    ConcatFusion,
    CrossAttention,
    CrossModalFusion,
    EdgeEncoding,
    GateFusion,
    GeneEncoder,
    GraphTransformer,
    ImageEncoder,
    NichePool,
    PyGPool,
)
from spatiagraph.nn.config import Configurable

D, G = 8, 40
SLIDE = make_tissue(120, num_genes=G, image="he", seed=0)


class Wrapped(Configurable):
    """A PyG convolution as a context layer."""

    def __init__(self, name: str):
        super().__init__()
        self.conv = {"gat": GATv2Conv(D, D, edge_dim=8), "graph": GraphConv(D, D)}[name]

    def forward(self, h, edge_index, edge_attr=None):
        edge_index = plain_edges(edge_index)
        return (
            self.conv(h, edge_index, edge_attr)
            if edge_attr is not None
            else self.conv(h, edge_index)
        )


GENES = {
    "none": lambda: None,
    "mlp": lambda: GeneEncoder(G, D),
    "linear": lambda: GeneEncoder(G, D, hidden_channels=0, transform="log1p"),
}
IMAGES = {
    "none": lambda: None,
    "vit-tokens": lambda: ImageEncoder("test_vit", D, tokens=True, img_size=32, patch_size=8),
    "cnn": lambda: ImageEncoder("test_convnext", D),
}
FUSIONS = {"concat": ConcatFusion, "gate": GateFusion, "cross": CrossModalFusion}
CONTEXTS = {
    "none": lambda: ContextEncoder(D, use_niche=False, use_tissue=False),
    "transformer": lambda: ContextEncoder(
        D, conv=GraphTransformer(D, 2, 2, edge_dim=8), edge_encoding=EdgeEncoding(8)
    ),
    "gat": lambda: ContextEncoder(D, conv=Wrapped("gat"), edge_encoding=EdgeEncoding(8)),
    "graph-topk": lambda: ContextEncoder(
        D, conv=Wrapped("graph"), niche_pool=PyGPool("TopKPooling", in_channels=D)
    ),
    "sag": lambda: ContextEncoder(D, niche_pool=PyGPool("SAGPooling", in_channels=D)),
    "dmon": lambda: ContextEncoder(D, niche_pool=PyGPool("DMoNPooling", channels=[D, D], k=5)),
    "mincut-topk": lambda: ContextEncoder(
        D,
        niche_pool=PyGPool("dense_mincut_pool", channels=D, k=5),
        tissue_pool=PyGPool("TopKPooling", in_channels=D),
    ),
}
CHOICES = [
    choice
    for choice in itertools.product(GENES, IMAGES, FUSIONS, CONTEXTS)
    if choice[:2] != ("none", "none")
]


def covering(choices):
    """As few of the choices as cover every pair of parts that comes up among them, or nearly."""

    def pairs(choice):
        return set(itertools.combinations(enumerate(choice), 2))

    left, rows = set().union(*map(pairs, choices)), []
    while left:
        rows.append(max(choices, key=lambda choice: len(pairs(choice) & left)))
        left -= pairs(rows[-1])
    return rows


COVERING = covering(CHOICES)
ALL = [
    pytest.param(*choice, marks=() if choice in COVERING else pytest.mark.slow)
    for choice in CHOICES
]


def test_every_two_parts_are_tried_together():
    assert len(COVERING) <= len(CONTEXTS) * max(len(GENES), len(IMAGES)) + 1
    for i, j in itertools.combinations(range(4), 2):
        together, tried = ({(c[i], c[j]) for c in rows} for rows in (CHOICES, COVERING))
        assert tried == together


@pytest.fixture(scope="module")
def data():
    return to_data(SLIDE, image=(16.0, 32))


def build(genes: str, image: str, fusion: str, context: str) -> ContextModel:
    torch.manual_seed(0)
    return ContextModel(
        SlideToGraph(GenePanel(SLIDE.symbols), window_um=16.0),
        CellEncoder(GENES[genes](), IMAGES[image](), FUSIONS[fusion](D)),
        CONTEXTS[context](),
    )


def test_gates_leave_every_cell_as_it_is_at_the_start(data):
    """SPATIA fact 16."""
    model = build("mlp", "none", "gate", "transformer").eval()
    z = model.cell_encoder(data.x, gene_mask=data.gene_mask, depth=data.depth)
    assert_close(model(**model.inputs(data)).cell, z, rtol=0, atol=0)


@pytest.mark.parametrize(("genes", "image", "fusion", "context"), ALL)
def test_any_composition_runs_learns_and_saves(data, tmp_path, genes, image, fusion, context):
    model = build(genes, image, fusion, context)
    for parameter in model.parameters():  # open every gate
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    out = model(**model.inputs(data))
    assert out.cell.shape == (120, D)
    assert out.niche_of_cell.shape == (120,)
    predicted = [
        model.head(out.cell, data.depth).log_mu.mean() + model.head.log_theta.sum(),
        model.niche_head(out.niche, out.niche.new_ones(len(out.niche))).log_mu.mean(),
        model.niche_head.log_theta.sum() + out.tissue.square().sum(),
        out.niche.new_zeros(()) if out.loss is None else out.loss,
    ]
    sum(predicted).backward()
    unused = {"fusion.gene_null", "fusion.image_null"}  # both modalities are there for every cell
    if image == "none" and genes != "none":
        unused.discard("fusion.image_null")
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None and not any(name.endswith(u) for u in unused)
    ]
    assert not silent

    custom = {f"{Wrapped.__module__}.{Wrapped.__qualname__}": Wrapped}
    model.eval().save_pretrained(tmp_path)
    again = ContextModel.from_pretrained(tmp_path, custom=custom)
    assert_close(again(**again.inputs(data)), model(**model.inputs(data)))


@pytest.fixture(scope="module")
def trained(data) -> ContextModel:
    model = ContextModel.for_slides([SLIDE], channels=16, num_genes=30, image=None, tissue_size=40)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.1
    return model.eval()


def test_permuting_cells_permutes_the_embeddings(trained):
    """SPATIA fact 17."""
    perm = torch.randperm(120, generator=torch.Generator().manual_seed(0)).numpy()
    out = trained(**trained.inputs(dense(trained, SLIDE)))
    mixed = trained(**trained.inputs(dense(trained, SLIDE[perm])))
    assert_close(mixed.cell, out.cell[perm], atol=1e-5, rtol=1e-4)
    assert_close(mixed.niche, out.niche[perm], atol=1e-5, rtol=1e-4)


def test_moving_and_turning_the_slide_changes_nothing(trained):
    """SPATIA fact 17: positions enter as distances alone."""
    data = dense(trained, SLIDE)
    turned = data.clone()
    angle = torch.tensor(0.7)
    rotation = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    turned.pos = data.pos @ rotation + torch.tensor([300.0, -50.0])
    out, moved = trained(**trained.inputs(data)), trained(**trained.inputs(turned))
    assert_close(moved.cell, out.cell, atol=1e-4, rtol=1e-4)
    assert_close(moved.tissue, out.tissue, atol=1e-4, rtol=1e-4)


def test_two_slides_in_a_batch_equal_two_runs(trained):
    """SPATIA fact 19."""
    other = make_tissue(90, num_genes=G, image=None, seed=3, slide_id="other")
    parts = [dense(trained, SLIDE), dense(trained, other)]
    batch = Batch.from_data_list(parts)
    out = trained(**trained.inputs(batch))
    alone = [trained(**trained.inputs(part)) for part in parts]
    for level in ("cell", "niche", "tissue"):
        expected = torch.cat([getattr(part, level) for part in alone])
        assert_close(getattr(out, level), expected, atol=1e-5, rtol=1e-4)


def learned(niche_pool: nn.Module, **options) -> ContextEncoder:
    """A context encoder with open gates."""
    torch.manual_seed(0)
    encoder = ContextEncoder(D, niche_pool=niche_pool, **options).eval()
    for parameter in encoder.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return encoder


def places(data) -> dict:
    keys = ("pos", "edge_index", "niche", "tissue", "niche_index")
    return {**{key: data[key] for key in keys}, "batch": data.get("batch")}


def test_as_many_clusters_as_planted_niches_still_lie_in_one_region(data):
    """The number of groups says nothing: DMoN's niches are not those the regions were made of."""
    num = data.tissue.numel()
    where = {**places(data), "tissue": torch.arange(num) % 4}
    encoder = learned(PyGPool("DMoNPooling", channels=[D, D], k=num))
    out = encoder(torch.randn(data.num_nodes, D), **where)
    assert out.niche.shape == (num, D)
    assert out.tissue.shape == (1, D)
    assert (out.tissue_of_niche == 0).all()


def test_every_cell_kept_by_top_k_hears_of_the_region_of_its_slide(data):
    encoder = learned(PyGPool("TopKPooling", in_channels=D, ratio=0.999))  # rounded up
    z = torch.randn(data.num_nodes, D)
    out = encoder(z, **{**places(data), "tissue": torch.arange(data.num_nodes) % 4})
    assert out.niche_of_cell.sort().values.equal(torch.arange(data.num_nodes))
    assert out.tissue.shape == (1, D)
    # the cell's own share in its niche, back at the cell
    score = (
        z @ encoder.niche_pool.pool.select.weight[0]
    ) / encoder.niche_pool.pool.select.weight.norm()
    assert_close(out.niche[out.niche_of_cell], z * score.tanh()[:, None])


LEVELS = {
    "dmon": lambda: (PyGPool("DMoNPooling", channels=[D, D], k=5), None),
    "topk": lambda: (PyGPool("TopKPooling", in_channels=D, ratio=0.999), None),
    "asap": lambda: (PyGPool("ASAPooling", in_channels=D), None),
    "planted-dmon": lambda: (NichePool(D), PyGPool("DMoNPooling", channels=[D, D], k=3)),
    "mem-mincut": lambda: (
        PyGPool("MemPooling", in_channels=D, out_channels=D, heads=2, num_clusters=4),
        PyGPool("dense_mincut_pool", channels=D, k=2),
    ),
}


@pytest.mark.parametrize("levels", LEVELS)
def test_learned_levels_of_two_slides_in_a_batch_equal_two_runs(levels):
    torch.manual_seed(0)
    niche_pool, tissue_pool = LEVELS[levels]()
    slides = [SLIDE, make_tissue(90, num_genes=G, image=None, seed=3, slide_id="other")]
    parts = [to_data(slide) for slide in slides]
    encoder = learned(niche_pool, tissue_pool=tissue_pool)
    z = [0.1 * torch.randn(part.num_nodes, D) for part in parts]  # no ties of saturated scores
    both = encoder(torch.cat(z), **places(Batch.from_data_list(parts)))
    alone = [encoder(own, **places(part)) for own, part in zip(z, parts, strict=True)]
    for level in ("cell", "niche", "tissue"):
        expected = torch.cat([getattr(out, level) for out in alone])
        assert_close(getattr(both, level), expected, atol=1e-5, rtol=1e-4)
    if both.loss is not None:
        assert_close(both.loss, torch.stack([out.loss for out in alone]).mean())


def test_a_pooling_says_whether_it_assigns_and_made_groups_have_no_image(data):
    with pytest.raises(TypeError, match="attribute 'assigns', got Linear"):
        ContextEncoder(D, niche_pool=nn.Linear(D, D))
    own = PyGPool("TopKPooling", in_channels=D)
    with pytest.raises(ValueError, match="PyGPool makes its own"):
        ContextEncoder(D, niche_pool=own, niche_fusion=CrossAttention(D))
    with pytest.raises(ValueError, match="no 'hidden_niches'"):
        ContextEncoder(D, niche_pool=own, maskable=True)(
            torch.randn(data.num_nodes, D),
            **places(data),
            hidden_niches=torch.zeros(data.tissue.numel(), dtype=torch.bool),
        )


def test_a_slide_that_does_not_measure_some_genes_is_read_without_them(trained):
    fewer = SLIDE.adata[:, 5:].copy()
    slide = type(SLIDE)(fewer, slide_id="fewer")
    data = dense(trained, slide)
    assert not trained.gene_mask(data).all()
    assert trained(**trained.inputs(data)).cell.isfinite().all()


def dense(model: ContextModel, slide) -> object:
    data = model.prepare(slide)
    data.x = data.x.to_dense()
    return data
