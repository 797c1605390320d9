"""Every gene encoder × image encoder × fusion × context encoder, and the complete model."""

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch_geometric.data import Batch
from torch_geometric.nn import GATv2Conv, GraphConv

from spatiagraph.data import GenePanel, make_tissue, to_data
from spatiagraph.data.recipe import KNN, Crop, Grid, Neighborhoods, Parts, Recipe, Whole
from spatiagraph.graph.edges import plain_edges
from spatiagraph.inference.embedding import embed_data
from spatiagraph.models import ContextEncoder, ContextModel, default_recipe
from spatiagraph.models.base import cell_graph, gene_mask
from spatiagraph.nn import (
    AttentionPool,
    CellEncoder,
    Cells,
    ConcatFusion,
    CrossAttention,
    CrossModalFusion,
    EdgeEncoding,
    GatedMLP,
    GateFusion,
    GeneEncoder,
    GraphTransformer,
    Hidden,
    ImageEncoder,
    Level,
    NichePool,
    PyGPool,
)
from spatiagraph.nn.cell_graph import CellGraph, LevelGraph
from spatiagraph.nn.config import Configurable
from spatiagraph.tasks import pretraining
from spatiagraph.training import fit

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


def two(niche=None, tissue=None, **options):
    """Two levels, with the poolings given."""
    return [Level(D, pool=niche, **options), Level(D, pool=tissue)]


def topk(**options):
    return PyGPool("TopKPooling", in_channels=D, **options)


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
    "none": lambda: ContextEncoder(D, levels=[Level(D, top_down=False), Level(D, top_down=False)]),
    "transformer": lambda: ContextEncoder(
        D, conv=GraphTransformer(D, 2, 2, edge_dim=8), edge_encoding=EdgeEncoding(8)
    ),
    "gat": lambda: ContextEncoder(D, conv=Wrapped("gat"), edge_encoding=EdgeEncoding(8)),
    "graph-topk": lambda: ContextEncoder(D, conv=Wrapped("graph"), levels=two(topk())),
    "sag": lambda: ContextEncoder(D, levels=two(PyGPool("SAGPooling", in_channels=D))),
    "dmon": lambda: ContextEncoder(D, levels=two(PyGPool("DMoNPooling", channels=[D, D], k=5))),
    "mincut-topk": lambda: ContextEncoder(
        D, levels=two(PyGPool("dense_mincut_pool", channels=D, k=5), topk())
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


# no fewer than 21: each of 7 contexts meets each of 3 encoders of genes in a row of its own
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
    return to_data(SLIDE, crops=(Crop(16.0, 32),))


def build(genes: str, image: str, fusion: str, context: str) -> ContextModel:
    torch.manual_seed(0)
    return ContextModel(
        Recipe(GenePanel(SLIDE.symbols), crops=(Crop(16.0, 32),)),
        CellEncoder(GENES[genes](), IMAGES[image](), FUSIONS[fusion](D)),
        CONTEXTS[context](),
    )


def test_gates_leave_every_cell_as_it_is_at_the_start(data):
    """SPATIA fact 16."""
    model = build("mlp", "none", "gate", "transformer").eval()
    z = model.cell_encoder(Cells(data.x, gene_mask=data.gene_mask, depth=data.depth))
    assert_close(model(*model.inputs(data)).cell, z, rtol=0, atol=0)


class Twice(nn.Module):
    """Conv that doubles every cell."""

    def forward(self, h, edge_index):
        return 2 * h


def test_the_gate_of_the_cell_opens_to_the_change_of_it_not_to_all_of_it():
    """z + γ (h − z) with h = 2 z."""
    encoder = ContextEncoder(D, conv=Twice(), levels=[], num_hops=1)
    nn.init.constant_(encoder.gate, 0.25)
    z = torch.randn(5, D)
    graph = CellGraph(torch.zeros(5, 2), torch.tensor([[0, 1], [1, 2]]), ())
    assert_close(encoder(z, graph).cell, 1.25 * z)


@pytest.mark.parametrize("pool_context", [True, False])
def test_groups_pool_what_cells_heard_or_cells_as_they_came(pool_context):
    level = Level(D, pool=AttentionPool(D, hidden_channels=0), top_down=False)
    encoder = ContextEncoder(
        D, conv=Twice(), levels=[level], num_hops=1, change=GatedMLP(D), pool_context=pool_context
    )
    z = torch.randn(4, D)
    own = torch.tensor([0, 0, 1, 1])
    places = (LevelGraph(own, None, torch.zeros(2, 2)),)
    graph = CellGraph(torch.zeros(4, 2), torch.tensor([[0, 1], [1, 2]]), places)
    nn.init.constant_(encoder.change.gate, 0.5)
    out = encoder(z, graph)
    pooled = (2 if pool_context else 1) * z.view(2, 2, D).mean(1)
    assert_close(out.levels[0].h, pooled)  # queries start at zero: a mean
    assert_close(out.cell, z + 0.5 * encoder.change.mlp(z))


@pytest.mark.parametrize(("genes", "image", "fusion", "context"), ALL)
def test_any_composition_runs_learns_and_saves(data, tmp_path, genes, image, fusion, context):
    model = build(genes, image, fusion, context)
    for parameter in model.parameters():  # open every gate
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    out = model(*model.inputs(data))
    assert out.cell.shape == (120, D)
    assert out.levels[0].own.shape == (120,)
    niche, tissue = out.levels[0].h, out.levels[1].h
    predicted = [
        model.head(out.cell, data.depth).log_mu.mean() + model.head.log_theta.sum(),
        model.niche_head(niche, niche.new_ones(len(niche))).log_mu.mean(),
        model.niche_head.log_theta.sum() + tissue.square().sum(),
        niche.new_zeros(()) if out.loss is None else out.loss,
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
    got, expected = again(*again.inputs(data)), model(*model.inputs(data))
    assert_close(got.cell, expected.cell)
    for one, other in zip(got.levels, expected.levels, strict=True):
        assert_close(one, other)


@pytest.fixture(scope="module")
def trained(data) -> ContextModel:
    levels = (Neighborhoods(15), Parts(40))
    recipe = default_recipe([SLIDE], num_genes=30, image=False, levels=levels)
    model = ContextModel.for_slides([SLIDE], recipe, channels=16)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.1
    return model.eval()


def test_permuting_cells_permutes_the_embeddings(trained):
    """SPATIA fact 17."""
    perm = torch.randperm(120, generator=torch.Generator().manual_seed(0)).numpy()
    out = trained(*trained.inputs(dense(trained, SLIDE)))
    mixed = trained(*trained.inputs(dense(trained, SLIDE[perm])))
    assert_close(mixed.cell, out.cell[perm], atol=1e-5, rtol=1e-4)
    assert_close(mixed.levels[0].h, out.levels[0].h[perm], atol=1e-5, rtol=1e-4)


def test_moving_and_turning_the_slide_changes_nothing(trained):
    """SPATIA fact 17: positions enter as distances alone."""
    data = dense(trained, SLIDE)
    turned = data.clone()
    angle = torch.tensor(0.7)
    rotation = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    turned.pos = data.pos @ rotation + torch.tensor([300.0, -50.0])
    out, moved = trained(*trained.inputs(data)), trained(*trained.inputs(turned))
    assert_close(moved.cell, out.cell, atol=1e-4, rtol=1e-4)
    assert_close(moved.levels[1].h, out.levels[1].h, atol=1e-4, rtol=1e-4)


def test_two_slides_in_a_batch_equal_two_runs(trained):
    """SPATIA fact 19."""
    other = make_tissue(90, num_genes=G, image=None, seed=3, slide_id="other")
    parts = [dense(trained, SLIDE), dense(trained, other)]
    batch = Batch.from_data_list(parts)
    out = trained(*trained.inputs(batch))
    alone = [trained(*trained.inputs(part)) for part in parts]
    assert_side_by_side(out, alone)


def assert_side_by_side(both, alone):
    """Embeddings of a batch are those of its slides, at every level."""
    assert_close(both.cell, torch.cat([out.cell for out in alone]), atol=1e-5, rtol=1e-4)
    for i, level in enumerate(both.levels):
        expected = torch.cat([out.levels[i].h for out in alone])
        assert_close(level.h, expected, atol=1e-5, rtol=1e-4)


def learned(niche=None, tissue=None, **options) -> ContextEncoder:
    """A context encoder with open gates."""
    torch.manual_seed(0)
    encoder = ContextEncoder(D, levels=two(niche, tissue, **options)).eval()
    for parameter in encoder.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return encoder


def places(data):
    return cell_graph(data, ["niche", "tissue"])


def in_four_regions(data):
    """The same cells, their niches in four regions."""
    where = places(data)
    region = torch.arange(data.num_items("niche")) % 4
    above = where.levels[1]._replace(own=region, members=None, pos=torch.zeros(4, 2))
    return where._replace(levels=(where.levels[0], above))


def test_as_many_clusters_as_planted_niches_still_lie_in_one_region(data):
    """The number of groups says nothing: DMoN's niches are not those the regions were made of."""
    num = data.tissue.numel()
    encoder = learned(PyGPool("DMoNPooling", channels=[D, D], k=num))
    out = encoder(torch.randn(data.num_nodes, D), in_four_regions(data))
    assert out.levels[0].h.shape == (num, D)
    assert out.levels[1].h.shape == (1, D)
    assert (out.levels[1].own == 0).all()


def test_every_cell_kept_by_top_k_hears_of_the_region_of_its_slide(data):
    encoder = learned(topk(ratio=0.999))  # rounded up
    z = torch.randn(data.num_nodes, D)
    out = encoder(z, in_four_regions(data))
    own = out.levels[0].own
    assert own.sort().values.equal(torch.arange(data.num_nodes))
    assert out.levels[1].h.shape == (1, D)
    # the cell's own share in its niche, back at the cell
    weight = encoder.levels[0].pool.pool.select.weight
    score = (z @ weight[0]) / weight.norm()
    assert_close(out.levels[0].h[own], z * score.tanh()[:, None])


LEVELS = {
    "dmon": lambda: (PyGPool("DMoNPooling", channels=[D, D], k=5), None),
    "topk": lambda: (topk(ratio=0.999), None),
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
    poolings = LEVELS[levels]()
    slides = [SLIDE, make_tissue(90, num_genes=G, image=None, seed=3, slide_id="other")]
    parts = [to_data(slide) for slide in slides]
    encoder = learned(*poolings)
    z = [0.1 * torch.randn(part.num_nodes, D) for part in parts]  # no ties of saturated scores
    both = encoder(torch.cat(z), places(Batch.from_data_list(parts)))
    alone = [encoder(own, places(part)) for own, part in zip(z, parts, strict=True)]
    assert_side_by_side(both, alone)
    if both.loss is not None:
        assert_close(both.loss, torch.stack([out.loss for out in alone]).mean())


def test_a_pooling_says_whether_it_assigns_and_made_groups_have_no_image(data):
    with pytest.raises(TypeError, match="attribute 'assigns', got Linear"):
        Level(D, pool=nn.Linear(D, D))
    with pytest.raises(ValueError, match="PyGPool makes its own"):
        Level(D, pool=topk(), look=CrossAttention(D))
    hidden = Hidden(levels=(torch.zeros(data.tissue.numel(), dtype=torch.bool),))
    with pytest.raises(ValueError, match="no hidden groups"):
        learned(topk(), maskable=True)(torch.randn(data.num_nodes, D), places(data), hidden)


@pytest.mark.parametrize(
    "levels", [(), (Grid(40.0),), (Grid(20.0), Grid(40.0), Whole("section"))], ids=len
)
def test_a_model_has_any_number_of_levels(levels, tmp_path):
    recipe = default_recipe([SLIDE], num_genes=30, image=False, levels=levels, graph=KNN(4))
    model = ContextModel.for_slides([SLIDE], recipe, channels=8).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    expected = embed_data(model, recipe(SLIDE), tile_size=120)
    assert list(expected) == ["cell", *recipe.level_names]
    for level, value in embed_data(model, recipe(SLIDE), tile_size=30).items():
        assert_close(value, expected[level], rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    again = embed_data(ContextModel.from_pretrained(tmp_path), recipe(SLIDE), tile_size=120)
    assert_close(again["cell"], expected["cell"])
    loss = pretraining(model).loss(next(iter(model.batches([recipe(SLIDE)]))))
    assert set(loss.parts) == {"cell", "niche"} if levels else {"cell"}


def test_an_encoder_of_other_levels_than_the_recipe_is_refused(data):
    with pytest.raises(ValueError, match="a graph of 1 levels, as the encoder has, got 2"):
        ContextEncoder(D, levels=[Level(D)])(torch.randn(data.num_nodes, D), places(data))


def test_a_slide_that_does_not_measure_some_genes_is_read_without_them(trained):
    fewer = SLIDE.adata[:, 5:].copy()
    slide = type(SLIDE)(fewer, slide_id="fewer")
    data = dense(trained, slide)
    assert not gene_mask(data).all()
    assert trained(*trained.inputs(data)).cell.isfinite().all()


def dense(model: ContextModel, slide) -> object:
    return model.recipe(slide).dense()


@pytest.mark.parametrize("fixed", [True, False])
def test_the_basis_of_genes_learns_where_it_is_not_fixed(fixed):
    slide = make_tissue(100, num_genes=20, image=None, seed=0)
    model = ContextModel.for_slides([slide], channels=8, fixed_basis=fixed)
    start = model.cell_encoder.genes.linear.weight.clone()
    fit(model, slide, max_steps=2, lr=1e-2, accelerator="cpu", progress=False)
    assert torch.equal(start, model.cell_encoder.genes.linear.weight) == fixed
