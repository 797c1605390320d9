"""The SE(2) transformer against the equations, written out with every state of pairs kept."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spatiagraph.graph.pairs import NodeKind, known_pairs
from spatiagraph.nn import GaussianPairBias, Nodes, SE2Transformer

D, H = 16, 4


def nodes_of(num_cells=20, num_virtual=3, seed=0, num_neighbors=6, channels=8):
    """CLS, virtual cells and cells of one sub-slice."""
    generator = torch.Generator().manual_seed(seed)
    num = 1 + num_virtual + num_cells
    kind = torch.tensor([NodeKind.CLS] + [NodeKind.VIRTUAL] * num_virtual + [0] * num_cells)
    pos = 4 * torch.rand(num, 2, generator=generator)
    x = torch.randn(num, channels, generator=generator)
    pairs = known_pairs(pos, kind, num_neighbors)
    return Nodes(x, pos, kind, torch.zeros(num, dtype=torch.long), pairs)


def together(*parts):
    """Sub-slices side by side."""
    start, fields = 0, []
    for number, nodes in enumerate(parts):
        fields.append((nodes.pair_index + start, torch.full_like(nodes.batch, number)))
        start += len(nodes.x)
    pairs, batch = zip(*fields, strict=True)
    x, pos, kind = (torch.cat([getattr(n, f) for n in parts]) for f in ("x", "pos", "kind"))
    return Nodes(x, pos, kind, torch.cat(batch), torch.cat(pairs, 1))


def network(num_layers=3, seed=0, **options):
    torch.manual_seed(seed)
    model = SE2Transformer(
        8, D, num_layers, H, num_kernels=5, hidden_channels=24, dropout=0.1, **options
    )
    for name, parameter in model.named_parameters():  # away from the start, which is nearly plain
        if parameter.dim() > 1 or "mlp" in name:
            nn.init.normal_(parameter, std=1.0 if name.startswith("bias") else 0.3)
    return model.eval()


def by_the_equations(model, nodes):
    """Node states, last pair state and first pair state of one sub-slice."""
    num = len(nodes.x)
    start = torch.zeros(H, num, num)
    if not model.no_bias:
        away = torch.full((num, num), torch.nan)
        for i, j in nodes.pair_index.T.tolist():
            away[i, j] = away[j, i] = max((nodes.pos[i] - nodes.pos[j]).norm(), 1e-4)
        for i in range(1, num):
            for j in range(1, num):
                if i == j:
                    continue
                known = not away[i, j].isnan()
                start[:, i, j] = model.bias(away[i, j].view(1))[0] if known else model.bias.far()
    h, pair = model.embed(nodes.x) + model.kind(nodes.kind), start
    for layer in model.layers:
        inside = layer.norm_attention(h) if layer.pre_norm else h
        q, k, v = (
            f(inside).view(num, H, D // H).transpose(0, 1) for f in (layer.q, layer.k, layer.v)
        )
        s = q @ k.transpose(1, 2) / math.sqrt(D / H) + pair
        change = layer.out((s.softmax(2) @ v).transpose(0, 1).reshape(num, D))
        if layer.pre_norm:
            h = h + change
            h = h + layer.mlp(layer.norm_mlp(h))
        else:
            h = layer.norm_attention(h + change)
            h = layer.norm_mlp(h + layer.mlp(h))
        pair = torch.zeros_like(pair) if model.no_bias else s
    return model.norm(h), s.permute(1, 2, 0), start.permute(1, 2, 0)


@pytest.mark.parametrize("options", [{}, {"pre_norm": True}, {"no_bias": True}, {"far": 100.0}])
def test_states_are_those_of_the_equations(options):
    model, nodes = network(**options), nodes_of()
    model.rows, model.bias.chunk_size = 7, 11
    h, pair, _ = by_the_equations(model, nodes)
    at = torch.tensor([[4, 9, 1], [6, 2, 20]])
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            out = model(nodes, at=at, return_pair=True)
        assert_close(out.h, h, atol=1e-5, rtol=1e-4)
        assert_close(out.pair[0], pair, atol=1e-5, rtol=1e-4)
        assert_close(out.at, pair[at[0], at[1]], atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_the_equations():
    model, nodes = network(), nodes_of()
    model.rows, model.bias.chunk_size = 7, 11
    weight = torch.randn(len(nodes.x), D)

    def gradients(h, pair):
        ((h * weight).sum() + pair.square().mean()).backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found

    expected = gradients(*by_the_equations(model, nodes)[:2])
    out = model(nodes, return_pair=True)
    got = gradients(out.h, out.pair)
    assert set(got) == set(expected) == {name for name, _ in model.named_parameters()}
    for name, value in expected.items():
        assert_close(got[name], value, atol=2e-4, rtol=1e-3, msg=name)


def test_attention_is_that_of_the_last_layer():
    model, nodes = network(num_layers=1), nodes_of()
    model.rows = 7
    _, pair, _ = by_the_equations(model, nodes)
    weight = pair.permute(2, 0, 1).softmax(2).mean(0)
    at = torch.stack([torch.arange(24), torch.arange(24).roll(1)])
    assert_close(model.attention(nodes, at), weight[at[0], at[1]], atol=1e-6, rtol=1e-4)


def test_rigid_motions_change_nothing_and_scale_does():
    """SToFM fact A1."""
    model, nodes = network(), nodes_of()
    out = model(nodes, return_pair=True)
    turn = torch.tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    mirror = torch.tensor([-1.0, 1.0])
    for pos in (nodes.pos @ turn.T, nodes.pos + 30, nodes.pos * mirror):
        other = model(nodes._replace(pos=pos), return_pair=True)
        assert_close(other.h, out.h, atol=1e-4, rtol=0)
        assert_close(other.pair, out.pair, atol=1e-4, rtol=0)
    larger = model(nodes._replace(pos=2 * nodes.pos))
    assert (larger.h - out.h).abs().max() > 1e-2


def test_order_of_cells_carries_over():
    """SToFM fact A2."""
    model, nodes = network(), nodes_of()
    out = model(nodes, return_pair=True)
    perm = torch.cat([torch.arange(4), 4 + torch.randperm(20)])
    at = torch.empty_like(perm)
    at[perm] = torch.arange(24)
    turned = nodes._replace(
        x=nodes.x[perm], pos=nodes.pos[perm], kind=nodes.kind[perm], pair_index=at[nodes.pair_index]
    )
    other = model(turned, return_pair=True)
    assert_close(other.h, out.h[perm], atol=1e-5, rtol=1e-4)
    assert_close(other.pair, out.pair[:, perm][:, :, perm], atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing_and_gets_no_attention():
    """SToFM fact A3."""
    model, short, long = network(), nodes_of(9, seed=1), nodes_of(30, seed=2)
    both = together(short, long)
    out = model(both, return_pair=True)
    for number, (nodes, rows) in enumerate([(short, slice(0, 13)), (long, slice(13, None))]):
        alone = model(nodes, return_pair=True)
        num = len(nodes.x)
        assert_close(out.h[rows], alone.h, atol=1e-5, rtol=1e-4)
        assert_close(out.pair[number, :num, :num], alone.pair[0], atol=1e-5, rtol=1e-4)
    assert bool((out.pair[0, :, 13:] == 0).all())
    everyone = torch.cartesian_prod(torch.tensor([5]), torch.arange(13)).T
    total = model.attention(both, everyone).sum()  # all of it goes to the 13 real nodes
    assert_close(total, torch.tensor(1.0))


def test_no_bias_of_a_node_with_itself_of_cls_and_of_padding():
    """SToFM fact A4."""
    model = network()
    both = together(nodes_of(9, seed=1), nodes_of(30, seed=2))
    real = torch.arange(34) < torch.tensor([[13], [34]])
    start = model.pair_input(both, real)
    assert bool((start.diagonal(dim1=2, dim2=3) == 0).all())
    assert bool((start[:, :, 0] == 0).all() and (start[:, :, :, 0] == 0).all())
    assert bool((start[0, :, 13:] == 0).all() and (start[0, :, :, 13:] == 0).all())
    assert bool((start[1, :, 1:, 1:].masked_select(~torch.eye(33, dtype=torch.bool)) != 0).all())


def plain_encoder(model):
    """PyTorch's own post-norm encoder with the same weights."""
    encoder = []
    for layer in model.layers:
        own = nn.TransformerEncoderLayer(D, H, 24, 0.0, "gelu", batch_first=True)
        maps = (layer.q, layer.k, layer.v)
        own.self_attn.in_proj_weight.data = torch.cat([m.weight for m in maps])
        own.self_attn.in_proj_bias.data = torch.cat([m.bias for m in maps])
        own.self_attn.out_proj.load_state_dict(layer.out.state_dict())
        own.linear1.load_state_dict(layer.mlp[0].state_dict())
        own.linear2.load_state_dict(layer.mlp[3].state_dict())
        own.norm1.load_state_dict(layer.norm_attention.state_dict())
        own.norm2.load_state_dict(layer.norm_mlp.state_dict())
        encoder.append(own)
    return nn.Sequential(*encoder).eval()


@pytest.mark.parametrize(("num_layers", "equal"), [(1, True), (3, False)])
def test_without_distances_one_layer_is_a_plain_encoder_and_more_add_up(num_layers, equal):
    """SToFM fact A4: CLS alone beside others of its kind has no bias at all."""
    model, nodes = network(num_layers), nodes_of()
    nodes = nodes._replace(
        kind=torch.full((24,), int(NodeKind.CLS)), pair_index=torch.empty(2, 0, dtype=torch.long)
    )
    plain = plain_encoder(model)((model.embed(nodes.x) + model.kind(nodes.kind)).unsqueeze(0))[0]
    assert torch.allclose(model(nodes).h, plain, atol=1e-5) == equal


def test_pairs_add_up_from_where_they_start():
    """SToFM fact A5."""
    model, nodes = network(), nodes_of()
    for layer in model.layers:
        nn.init.zeros_(layer.q.weight)
        nn.init.zeros_(layer.q.bias)
    real = torch.ones(1, 24, dtype=torch.bool)
    start = model.pair_input(nodes, real).permute(0, 2, 3, 1)
    assert_close(model(nodes, return_pair=True).pair, start, atol=1e-5, rtol=0)
    model = network(1)
    _, pair, start = by_the_equations(model, nodes)
    h = model.embed(nodes.x) + model.kind(nodes.kind)
    q, k, _ = model.layers[0].project(h.unsqueeze(0))
    product = (q @ k.transpose(2, 3))[0].permute(1, 2, 0) / math.sqrt(D / H)
    assert_close(pair - start, product, atol=1e-5, rtol=1e-4)


def test_kernels_have_the_values_of_a_gaussian():
    """SToFM fact A6."""
    bias = GaussianPairBias(2, 1)
    for mean, width, distance, value in [(0.0, 1.0, 1e-7, 0.39894), (1.0, 0.5, 1.0, 0.79787)]:
        bias.mean.data.fill_(mean)
        bias.width.data.fill_(width)
        assert bias.kernels(torch.tensor([distance])).item() == pytest.approx(value, abs=1e-4)
    many = GaussianPairBias(2, 128)
    assert float(many.mean.detach().max()) <= 3
    assert bool((many.kernels(torch.tensor([100.0])) == 0).all())
    published = GaussianPairBias(2, 128, far=100.0)
    published.load_state_dict(many.state_dict())
    assert_close(published.far(), many.far())


def test_without_bias_positions_play_no_part_at_any_depth():
    """SToFM fact A14."""
    model, nodes = network(no_bias=True), nodes_of()
    out = model(nodes).h
    assert_close(model(nodes._replace(pos=torch.randn(24, 2))).h, out, atol=0, rtol=0)
    plain = plain_encoder(model)((model.embed(nodes.x) + model.kind(nodes.kind)).unsqueeze(0))[0]
    assert_close(out, plain, atol=1e-5, rtol=1e-4)


def test_a_sub_slice_of_a_single_cell_works():
    """SToFM fact A14."""
    for num_virtual in (0, 2):
        nodes = nodes_of(1, num_virtual)
        out = network()(nodes)
        assert out.h.shape == (2 + num_virtual, D)
        assert bool(out.h.isfinite().all())


def test_nodes_at_one_position_are_near_and_not_far():
    model, nodes = network(), nodes_of()
    pos = nodes.pos.clone()
    pos[5] = pos[4]
    nodes = nodes._replace(pos=pos, pair_index=known_pairs(pos, nodes.kind, 6))
    start = model.pair_input(nodes, torch.ones(1, 24, dtype=torch.bool))
    assert_close(start[0, :, 4, 5], model.bias(torch.tensor([1e-4]))[0])


@pytest.mark.parametrize(
    ("hidden", "number"), [(256, 1_667_722), (768, 2_718_346), (1024, 3_243_658)]
)
def test_the_published_size_has_the_published_number_of_parameters(hidden, number):
    """SToFM, section 3.2."""
    model = SE2Transformer(256, 256, 4, 8, num_kernels=128, hidden_channels=hidden)
    assert sum(p.numel() for p in model.parameters()) == number


def test_dropout_is_the_same_in_the_backward_pass():
    """Checkpoints repeat the random numbers of the forward pass: a gradient of what was seen."""
    model, nodes = network().train().double(), nodes_of()
    nodes = nodes._replace(x=nodes.x.double(), pos=nodes.pos.double())

    def loss(shift):
        torch.manual_seed(5)
        with torch.no_grad():
            model.embed.bias += shift
        return model(nodes).h[:, 0].sum()

    loss(0.0).backward()
    slope = model.embed.bias.grad.sum()
    with torch.no_grad():
        difference = (loss(1e-6) - loss(-2e-6)) / 2e-6
    assert_close(slope, difference, rtol=1e-3, atol=1e-4)
