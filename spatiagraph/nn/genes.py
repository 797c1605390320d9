"""Gene encoder: panel-masked counts of each cell → one vector."""

from typing import Literal

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable

Transform = Literal["sqrt", "log1p", "none"]


class GeneEncoder(Configurable):
    r"""Linear map of normalised counts plus a residual MLP, blind to masked genes.

    Counts :math:`x` become :math:`f(s\,x/d)` with the depth :math:`d` of the cell and a common
    target depth :math:`s`. The default :math:`f=\sqrt{\cdot}` stabilises the variance of counts,
    so that distances are Hellinger distances between expression profiles. Values are centred;
    masked or unmeasured genes then add nothing, and the rest is scaled up by the inverse of the
    visible share, as in dropout:

    .. math::
        \mathbf{h}_i = \tfrac{G}{|V_i|} \mathbf{W} (f(s\,\mathbf{x}_i / d_i) - \boldsymbol\mu)_{V_i}
        + \boldsymbol\gamma \odot \mathrm{MLP}(\cdot), \qquad \boldsymbol\gamma = 0
        \text{ at the start}.

    :meth:`initialize` sets :math:`\boldsymbol\mu` and puts the principal components of a data set
    in :math:`\mathbf{W}`, so that training starts from PCA.

    Args:
        num_genes: Panel size, :math:`G`.
        channels: Size of the output, :math:`D`.
        hidden_channels: Width of the residual MLP; 0 leaves the linear map alone.
        transform: :math:`f`: ``"sqrt"``, ``"log1p"`` or ``"none"``.
        normalize_depth: Divide by the depth; ``False`` for values that are normalised already.
        fixed_basis: Leave :math:`\mathbf{W}` as :meth:`initialize` sets it and train the rest:
            small slides have too few cells to learn a better one.
        dropout: Dropout inside the MLP.

    Shapes:
        - **x**: counts, ``[N, G]``
        - **gene_mask**: True where a gene may be seen, ``[G]`` or ``[N, G]``
        - **depth**: total counts over all genes, ``[N]``; the sum of ``x`` when not given
        - **output**: ``[N, D]``
    """

    mean: Tensor
    target_depth: Tensor

    def __init__(
        self,
        num_genes: int,
        channels: int,
        *,
        hidden_channels: int = 128,
        transform: Transform = "sqrt",
        normalize_depth: bool = True,
        fixed_basis: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        if transform not in ("sqrt", "log1p", "none"):
            raise ValueError(f"Expected 'transform' sqrt, log1p or none, got {transform!r}")
        self.num_genes = num_genes
        self.channels = channels
        self.transform = transform
        self.normalize_depth = normalize_depth
        self.linear = nn.Linear(num_genes, channels, bias=False)
        self.linear.weight.requires_grad_(not fixed_basis)
        self.register_buffer("mean", torch.zeros(num_genes))
        self.register_buffer("target_depth", torch.tensor(1e4))
        self.mlp = (
            nn.Sequential(
                nn.LayerNorm(channels),
                nn.Linear(channels, hidden_channels),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(hidden_channels, channels),
            )
            if hidden_channels
            else None
        )
        self.scale = nn.Parameter(torch.zeros(channels)) if hidden_channels else None

    def normalize(self, x: Tensor, depth: Tensor | None = None) -> Tensor:
        """Depth-normalised, transformed and not yet centred values, ``[N, G]``."""
        if self.normalize_depth:
            total = x.sum(1) if depth is None else depth
            x = x * (self.target_depth / total.clamp(min=1.0)).unsqueeze(1)
        return {"sqrt": torch.sqrt, "log1p": torch.log1p, "none": lambda x: x}[self.transform](x)

    def forward(
        self, x: Tensor, gene_mask: Tensor | None = None, depth: Tensor | None = None
    ) -> Tensor:
        if x.size(-1) != self.num_genes:
            raise ValueError(
                f"Expected {self.num_genes} genes as in the model's panel, got {x.size(-1)}; "
                "align the slide with GenePanel.counts"
            )
        value = self.normalize(x, depth) - self.mean
        if gene_mask is not None:
            visible = gene_mask.sum(-1, keepdim=True).clamp(min=1)
            value = value * (gene_mask * (self.num_genes / visible))
        h = self.linear(value)  # [N, D]
        if self.mlp is not None:
            h = h + self.scale * self.mlp(h)
        return h

    @torch.no_grad()
    def initialize(
        self,
        x: Tensor,
        gene_mask: Tensor | None = None,
        depth: Tensor | None = None,
        *,
        seed: int = 0,
    ) -> None:
        """Start from the principal components of a sample of cells.

        Args:
            x: Counts of the sample, ``[N, G]``; some ten thousand cells are plenty.
            gene_mask: Measured genes, ``[G]`` or ``[N, G]``; unmeasured entries count as the mean.
            depth: Total counts of each cell, ``[N]``.
            seed: Seed of the randomised decomposition.

        Raises:
            ValueError: With fewer than two cells.
        """
        from sklearn.decomposition import PCA

        if x.size(0) < 2:
            raise ValueError(f"Expected at least 2 cells to start from, got {x.size(0)}")
        total = x.sum(1) if depth is None else depth
        self.target_depth.fill_(float(total[total > 0].median()))
        value = self.normalize(x, depth).float()
        seen = torch.ones_like(value) if gene_mask is None else gene_mask.expand_as(value).float()
        mean = (value * seen).sum(0) / seen.sum(0).clamp(min=1)
        centred = (value - mean) * seen
        rank = min(self.channels, *(size - 1 for size in x.shape))
        pca = PCA(rank, random_state=seed).fit(centred.numpy())
        nn.init.zeros_(self.linear.weight)
        components = torch.from_numpy(pca.components_).to(self.linear.weight)
        self.linear.weight[:rank] = components
        self.mean.copy_(mean)

    def extra_repr(self) -> str:
        return f"{self.num_genes}, {self.channels}, transform={self.transform!r}"
