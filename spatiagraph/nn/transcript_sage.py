"""GraphSAGE on molecules: gene embeddings from the genes of neighbouring molecules."""

from torch import Tensor, nn
from torch.nn.functional import relu
from torch_geometric.nn import SAGEConv

from spatiagraph.nn.config import Configurable


class TranscriptSAGE(Configurable):
    r"""Two mean-aggregating layers of GraphSAGE on the genes of molecules.

    .. math::
        h_v \leftarrow W_1 h_v + W_2 \operatorname{mean}_{u \in N(v)} h_u

    with a ReLU between the layers (`"Inductive Representation Learning on Large Graphs"
    <https://arxiv.org/abs/1706.02216>`_). Genes come in by a table, which is a linear layer on
    one-hot genes.

    Args:
        num_genes: Number of genes, :math:`G`.
        out_channels: Size of the output.
        hidden_channels: Size of the table and of the first layer.

    Shapes:
        - **gene**: gene of each molecule, ``[M]``
        - **edge_index**: neighbours, both ways, ``[2, E]``
        - **output**: ``[M, out_channels]``
    """

    def __init__(self, num_genes: int, out_channels: int, hidden_channels: int = 64):
        super().__init__()
        self.table = nn.Embedding(num_genes, hidden_channels)
        self.first = SAGEConv(hidden_channels, hidden_channels)
        self.second = SAGEConv(hidden_channels, out_channels)

    def forward(self, gene: Tensor, edge_index: Tensor) -> Tensor:
        h = relu(self.first(self.table(gene), edge_index))
        out: Tensor = self.second(h, edge_index)
        return out
