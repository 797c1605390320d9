"""Graph attention network as a classifier: the baseline of embeddings that look at neighbours."""

from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, elu
from torch_geometric.nn import GATConv

from spatiagraph.evaluate.inputs import as_embedding
from spatiagraph.graph.build import knn_graph
from spatiagraph.graph.points import as_points

_HELD_OUT = 10  # every tenth training cell decides when to stop


class GATClassifier(ClassifierMixin, BaseEstimator):
    """Classifier of two layers of graph attention over nearest cells.

    The network of `GAT <https://arxiv.org/abs/1710.10903>`_, on PyG's ``GATConv``. It is a
    classifier for :func:`score_probe` whose inputs are the numbers of cells, since a cell is read
    with its neighbours: training sees the graph of training cells alone, prediction that of all.

    Args:
        features: Vector of each cell, ``[N, D]``; standardised over training cells.
        pos: Cell centres in µm, ``[N, 2]``.
        slide: Section of each cell, ``[N]``; no neighbours across sections.
        k: Nearest cells of each that it attends to, beside itself.
        channels: Hidden channels of a head.
        heads: Attention heads of the first layer.
        epochs: Most passes over all training cells.
        patience: Passes without a lower loss on a tenth of the training cells, which are held out,
            after which training ends; the best weights are kept.
        lr: Learning rate of AdamW.
        seed: Seed of weights, dropout and of the cells that are held out.

    Raises:
        ValueError: If arrays do not fit, or a number of a cell is out of range.

    Examples:
        >>> pos = np.random.default_rng(0).uniform(0, 99, (40, 2))
        >>> label = (pos[:, 0] > 50).astype(int)
        >>> cells = np.arange(40)[:, None]
        >>> model = GATClassifier(pos, pos, k=3, epochs=50, lr=0.05).fit(cells, label)
        >>> bool((model.predict(cells) == label).mean() > 0.8)
        True
    """

    def __init__(
        self,
        features: ArrayLike | Tensor,
        pos: ArrayLike | Tensor,
        slide: ArrayLike | None = None,
        *,
        k: int = 15,
        channels: int = 32,
        heads: int = 4,
        epochs: int = 100,
        patience: int = 15,
        lr: float = 5e-3,
        seed: int = 0,
    ):
        self.features = features
        self.pos = pos
        self.slide = slide
        self.k = k
        self.channels = channels
        self.heads = heads
        self.epochs = epochs
        self.patience = patience
        self.lr = lr
        self.seed = seed

    def fit(self, cells: ArrayLike, labels: ArrayLike) -> Self:
        """Train on the labels of some cells.

        Args:
            cells: Their numbers, ``[n]`` or ``[n, 1]``.
            labels: Their labels, ``[n]``.
        """
        z, points = as_embedding(self.features, "features"), as_points(self.pos)
        if len(z) != len(points):
            raise ValueError(f"Expected 'features' of {len(points)} cells, got {len(z)}")
        rows = self._rows(cells, len(z))
        self.classes_, code = np.unique(np.asarray(labels), return_inverse=True)
        if len(code) != len(rows):
            raise ValueError(f"Expected labels of {len(rows)} cells, got {len(code)}")
        scale = z[rows].std(axis=0)
        x = (z - z[rows].mean(axis=0)) / np.where(scale > 0, scale, 1)
        self._x = torch.as_tensor(x, dtype=torch.float32)
        self._edges = knn_graph(points, self.k, slide=self.slide).as_tensor()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self._network = _GAT(x.shape[1], self.channels, self.heads, len(self.classes_))
            self._train(torch.from_numpy(rows), torch.from_numpy(code))
        return self

    def predict(self, cells: ArrayLike) -> NDArray:
        """Labels of some cells, ``[n]``.

        Args:
            cells: Their numbers, ``[n]`` or ``[n, 1]``.
        """
        found: NDArray = self.classes_[self.decision_function(cells).argmax(1)]
        return found

    def decision_function(self, cells: ArrayLike) -> NDArray[np.floating]:
        """Logit of each label of some cells, ``[n, C]``: an embedding that has seen labels.

        Args:
            cells: Their numbers, ``[n]`` or ``[n, 1]``.
        """
        rows = self._rows(cells, len(self._x))
        with torch.no_grad():
            logits: Tensor = self._network.eval()(self._x, self._edges)
        return logits.numpy()[rows]

    def _train(self, rows: Tensor, code: Tensor) -> None:
        seen = torch.zeros(len(self._x), dtype=torch.bool)
        seen[rows] = True
        edges = self._edges[:, seen[self._edges].all(0)]
        order = torch.randperm(len(rows))
        held_out, train = order[::_HELD_OUT], order[torch.arange(len(order)) % _HELD_OUT > 0]
        if not len(train):
            held_out, train = order, order
        network = self._network
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.lr, weight_decay=5e-4)
        best, weights, left = float("inf"), network.state_dict(), self.patience
        for _ in range(self.epochs):
            optimizer.zero_grad()
            logits = network.train()(self._x, edges)
            cross_entropy(logits[rows[train]], code[train]).backward()
            optimizer.step()
            with torch.no_grad():
                logits = network.eval()(self._x, edges)
            loss = float(cross_entropy(logits[rows[held_out]], code[held_out]))
            left -= 1
            if loss < best:
                best, left = loss, self.patience
                weights = {name: value.clone() for name, value in network.state_dict().items()}
            if left <= 0:
                break
        network.load_state_dict(weights)

    @staticmethod
    def _rows(cells: ArrayLike, num_cells: int) -> NDArray[np.int64]:
        rows = np.asarray(cells).reshape(-1).astype(np.int64)
        if rows.size and not (0 <= rows.min() and rows.max() < num_cells):
            raise ValueError(
                f"Expected numbers of {num_cells} cells, got {rows.min()}…{rows.max()}"
            )
        return rows


class _GAT(nn.Module):
    def __init__(self, in_channels: int, channels: int, heads: int, num_classes: int):
        super().__init__()
        self.first = GATConv(in_channels, channels, heads, dropout=0.3)
        self.second = GATConv(channels * heads, num_classes, 1, dropout=0.3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = elu(self.first(dropout(x, 0.3, self.training), edge_index))
        logits: Tensor = self.second(dropout(h, 0.3, self.training), edge_index)
        return logits
