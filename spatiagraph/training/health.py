"""Health of a run: gradients, dimensions that the embeddings use, and whether anything moved.

Free of Lightning, so that reports can judge the history of a run without loading it.
"""

import pandas as pd
import torch
from torch import Tensor, nn

from spatiagraph.nn.cell_graph import Embeddings
from spatiagraph.tasks.base import Watched

_LEAST_RANK = 1.5  # nearly all cells on one line
_FALLEN = 0.25  # of the highest rank of the run
_ROWS = 1024  # cells of a batch that are looked at
_LEAST_CELLS = 500  # of 346 spots a model learned hidden genes worse than it started
_LEAST_LR_SUM = 0.05  # weights of a layer of 32 channels are of the order of 0.2


def effective_rank(embeddings: Tensor) -> float:
    r"""Number of dimensions that embeddings use, from 1 (cells on one line) to their size, ``D``.

    .. math::
        \exp\Big(-\sum_k p_k \log p_k\Big),\qquad p_k = \sigma_k / \sum_j \sigma_j

    with the singular values :math:`\sigma` of the embeddings, not centred: RankMe
    (https://arxiv.org/abs/2210.02885).

    Args:
        embeddings: ``[N, D]``; rows that are not finite are left out.

    Examples:
        >>> round(effective_rank(torch.eye(4)), 3)
        4.0
        >>> round(effective_rank(torch.ones(10, 4)), 3)
        1.0
    """
    return _rank_of_gram(_gram(embeddings))


def collapse_warning(history: pd.DataFrame) -> str | None:
    """Warning of embeddings that ended up all alike; ``None`` if they did not.

    They count as collapsed when their effective rank ends below 1.5, or below a quarter of the
    highest of the run.

    Args:
        history: One row per epoch with ``effective_rank``, as ``fit`` returns it; nothing is said
            of one without.

    Examples:
        >>> collapse_warning(pd.DataFrame({"effective_rank": [9.0, 1.2]}))[:23]
        'The embeddings collapse'
    """
    ranks = history["effective_rank"].dropna() if "effective_rank" in history else pd.Series([])
    if ranks.empty:
        return None
    last, best = float(ranks.iloc[-1]), float(ranks.max())
    if last >= _LEAST_RANK and last >= _FALLEN * best:
        return None
    return (
        f"The embeddings collapsed: they use {last:.1f} dimensions, after {best:.1f} at best "
        "(effective rank). Cells hardly differ; lower the learning rate, or give less weight to "
        "losses that pull embeddings together"
    )


def run_warnings(history: pd.DataFrame, watched: Watched | None = None) -> list[str]:
    """Lines about what is wrong with a run; none where nothing is.

    Of embeddings that collapsed, see :func:`collapse_warning`; of a run too short for its learning
    rate, since with Adam no weight moves much farther than the sum of the rates; of few cells; and
    of a run that was not better on validation than its start.

    Args:
        history: One row per epoch, as ``fit`` returns it; nothing is said of columns it lacks.
        watched: Score that says what is better; the loss when ``None``.

    Examples:
        >>> run_warnings(pd.DataFrame({"steps": [30], "lr_sum": [0.015], "moved": [0.01]}))[0][:44]
        'The run was too short to learn: the learning'
    """
    collapsed = collapse_warning(history)
    found = [] if collapsed is None else [collapsed]
    last = history.iloc[-1] if len(history) else pd.Series(dtype=float)
    if watched is None or f"start_val_{watched.name}" not in last:
        watched = Watched()
    if "moved" in last and last["lr_sum"] < _LEAST_LR_SUM:
        found.append(
            f"The run was too short to learn: the learning rates of its {last['steps']:.0f} steps "
            f"sum to {last['lr_sum']:.2g}, and no weight moves much farther than that (embeddings "
            f"moved by {last['moved']:.1%}). Give it more steps, smaller tiles or a higher rate"
        )
    elif "moved" in last and last["cells"] < _LEAST_CELLS and "start_val_loss" not in last:
        found.append(
            f"{last['cells']:.0f} cells are few to learn from, and nothing was held out to tell "
            "whether it helped. Train on more slides; validation=0.2 tells, and learns from fewer"
        )
    score, verb, end = f"val_{watched.name}", "lower", "lowest"
    if f"start_{score}" in last and score not in history:
        found.append(
            "The run ended within its first pass, before anything but its start was validated: the "
            "start was kept. Give it more steps, or smaller tiles"
        )
    elif f"start_{score}" in last:
        start, best = last[f"start_{score}"], history[score].min()
        better = best < start
        if watched.highest:
            verb, end, best = "raise", "highest", history[score].max()
            better = best > start
        if not better:
            found.append(
                f"Training did not {verb} the validation {watched.name} of the start, {start:.4g}"
                f" ({end} after it {best:.4g}): the start was kept"
            )
    return found


def progress_of(history: pd.DataFrame) -> str:
    """One line about a run: losses, steps, and how far they took the model.

    Args:
        history: One row per epoch, as ``fit`` returns it.

    Examples:
        >>> progress_of(pd.DataFrame({"loss": [2.0, 1.5], "steps": [4, 8], "lr_sum": [0.01, 0.02]}))
        'loss 2 → 1.5 in 8 steps (2 epochs), learning rates sum to 0.02'
    """
    last = history.iloc[-1]
    line = f"loss {history['loss'].iloc[0]:.4g} → {last['loss']:.4g}"
    if "start_val_loss" in last and "val_loss" in history:
        lowest = history["val_loss"].min()
        line += f", validation loss {last['start_val_loss']:.4g} → {lowest:.4g} at its lowest,"
    if "steps" in last:
        line += f" in {last['steps']:.0f} steps ({len(history)} epochs)"
        line += f", learning rates sum to {last['lr_sum']:.2g}"
    else:  # of a run before steps were counted
        line += f" in {len(history)} epochs"
    moved = {"moved": "embeddings", "gates_moved": "gates"}
    said = [f"{what} by {last[name]:.2g}" for name, what in moved.items() if name in last]
    return line + (f", moved {' and '.join(said)}" if said else "")


def gradient_norm(module: nn.Module) -> float | None:
    """Norm of all gradients together; ``None`` where there is none."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else None


class RankMeter:
    """Effective rank of the cell embeddings that a model in training computes along the way.

    Looks at some cells of every batch and keeps ``[D, D]`` numbers, whatever the number of cells.

    Args:
        embedder: Module that returns :class:`~spatiagraph.nn.Embeddings`; of others, and of
            ``None``, nothing is measured.
    """

    def __init__(self, embedder: nn.Module | None):
        self.gram: Tensor | None = None
        self._hook = None if embedder is None else embedder.register_forward_hook(self._see)

    def value(self) -> float | None:
        """Effective rank of what was seen; ``None`` if that is nothing."""
        return None if self.gram is None else _rank_of_gram(self.gram)

    def reset(self) -> None:
        """Discard the embeddings so far."""
        self.gram = None

    def close(self) -> None:
        """Stop looking."""
        if self._hook is not None:
            self._hook.remove()

    @torch.no_grad()
    def _see(self, module: nn.Module, inputs: object, output: object) -> None:
        if module.training and isinstance(output, Embeddings):
            z = output.cell
            step = max(1, z.size(0) // _ROWS)
            seen = _gram(z[::step][:_ROWS])
            self.gram = seen if self.gram is None else self.gram + seen


def _gram(z: Tensor) -> Tensor:
    """``zᵀz`` in float64 on the CPU, ``[D, D]``: squared singular values are its eigenvalues."""
    z = z.detach().float().cpu().double()
    z = z[torch.isfinite(z).all(1)]
    return z.T @ z


def _rank_of_gram(gram: Tensor) -> float:
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if not singular.sum() > 0:
        return 0.0
    p = singular / singular.sum() + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))
