"""Your own spatial layer on the library's attention kernel.

The label of a cell says what most of its seven neighbours are; the cell itself gives it away only
in the few genes that sense neighbours. The layer below is ordinary PyTorch; one line calls
``sg.kernels.neighbor_attention``, which stores nothing of size edges × channels::

    python examples/custom_spatial_gnn.py

Half a minute on two cores. Trained on one tissue and tested on another: accuracy 0.98, where the
same network without context has 0.63 and the majority class 0.50.
"""

import argparse

import torch
from torch import Tensor, nn

import spatiagraph as sg


class NeighborLayer(nn.Module):
    """Cells look at their neighbours and add what they see."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).unflatten(1, (3, self.heads, -1))
        message = sg.kernels.neighbor_attention(*qkv.unbind(1), edge_index)  # [N, heads, D / heads]
        return x + self.out(message.flatten(1))


class Net(nn.Module):
    """Linear → layers → linear; without layers, a network that sees the cell alone."""

    def __init__(self, num_genes: int, num_layers: int, channels: int = 32):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(num_genes, channels), nn.GELU(), nn.Dropout(0.3))
        self.layers = nn.ModuleList(NeighborLayer(channels) for _ in range(num_layers))
        self.decode = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.encode(x)
        for layer in self.layers:
            h = layer(h, edge_index)
        return self.decode(h)


def load(num_cells: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, edges and labels of a tissue; seeds share their biology, not their layout."""
    slide = sg.make_tissue(num_cells, seed=seed)
    data = sg.to_data(slide, graph=sg.data.recipe.KNN(7))
    x = torch.log1p(data.x * (100.0 / data.depth)[:, None])
    y = torch.tensor(slide.adata.obs["neighbor_label"].cat.codes.to_numpy(), dtype=torch.long)
    return x, data.edge_index, y


def accuracy(num_layers: int, train: tuple, test: tuple, epochs: int, seed: int) -> float:
    """Train on one tissue, score on the other."""
    torch.manual_seed(seed)
    x, edge_index, y = train
    net = Net(x.size(1), num_layers)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    for epoch in range(epochs):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x, edge_index), y)
        loss.backward()
        optimizer.step()
        if (epoch + 1) % 50 == 0:
            print(f"{num_layers} layers, epoch {epoch + 1}: loss {loss.item():.3f}")
    x, edge_index, y = test
    with torch.no_grad():
        return (net.eval()(x, edge_index).argmax(1) == y).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=5000, help="cells of each tissue")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--picture", help="file to draw the labels to")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    if args.picture:
        slide = sg.make_tissue(args.cells, seed=args.seed)
        sg.plot.spatial(slide, "neighbor_label", save=args.picture)
    train, test = load(args.cells, args.seed), load(args.cells, args.seed + 1)
    with_context, alone = (accuracy(n, train, test, args.epochs, args.seed) for n in (1, 0))
    majority = test[2].bincount().max().item() / args.cells
    print(f"accuracy {with_context:.3f} (without context {alone:.3f}, majority {majority:.3f})")


if __name__ == "__main__":
    main()
# sphinx_gallery_thumbnail_path = "images/gallery/custom_spatial_gnn.png"
