"""Mixture of experts: each token is decoded by the few networks that a gate chooses."""

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable


class MixtureOfExperts(Configurable):
    r"""Weighted sum of the best few of several MLPs, chosen for each token.

    .. math::
        \mathbf{y} = \sum_{e \in \mathrm{top}_k(\mathbf{g})} \frac{g_e}{\sum_{e'} g_{e'}}
        \mathrm{MLP}_e(\mathbf{h}), \qquad \mathbf{g} = \mathrm{softmax}(\mathbf{W} \mathbf{h})

    with the weights of those chosen made to sum to 1, as in `"Outrageously Large Neural Networks"
    <https://arxiv.org/abs/1701.06538>`_; 4 experts and the best 2 in the binned branch of SPATIA.

    Args:
        channels: Size of a token, :math:`D`.
        out_channels: Size of the output, :math:`O`.
        num_experts: Number of MLPs, :math:`E`.
        top_k: How many of them decode a token.
        hidden_channels: Width of each MLP; ``channels`` when not given.
        dropout: Dropout inside of the MLPs.

    Shapes:
        - **h**: ``[..., D]``
        - **output**: ``[..., O]``

    Raises:
        ValueError: If there are not as many experts as are to be chosen.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int = 1,
        *,
        num_experts: int = 4,
        top_k: int = 2,
        hidden_channels: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(
                f"Expected 'top_k' from 1 to the {num_experts} experts there are, got {top_k}"
            )
        hidden = channels if hidden_channels is None else hidden_channels
        self.top_k = top_k
        self.out_channels = out_channels
        self.gate = nn.Linear(channels, num_experts)
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, hidden),
                nn.LeakyReLU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.LeakyReLU(),
                nn.Linear(hidden, out_channels),
            )
            for _ in range(num_experts)
        )

    def weights(self, h: Tensor) -> Tensor:
        """Weight of each expert for each token, ``[..., E]``: 0 for those not chosen."""
        share = self.gate(h).softmax(-1)
        best, chosen = share.topk(self.top_k, dim=-1)
        kept = best / best.sum(-1, keepdim=True)
        return torch.zeros_like(share).scatter(-1, chosen, kept)

    def forward(self, h: Tensor) -> Tensor:
        flat = h.reshape(-1, h.size(-1))
        weights = self.weights(flat)
        out = flat.new_zeros(len(flat), self.out_channels)
        for number, expert in enumerate(self.experts):
            # not "> 0": a NaN is to reach the output
            tokens = weights[:, number].nonzero().squeeze(1)
            share = weights[tokens, number].unsqueeze(1)
            out = out.index_add(0, tokens, (share * expert(flat[tokens])).to(out.dtype))
        return out.view(*h.shape[:-1], self.out_channels)

    def extra_repr(self) -> str:
        return f"num_experts={len(self.experts)}, top_k={self.top_k}"
