"""Generator of cell images from embeddings, under a transition."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from spatiagraph.data.checks import nearest
from spatiagraph.data.cohort import one_channel_number
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.flow.path import LinearPath
from spatiagraph.flow.randomness import Randomness
from spatiagraph.flow.solve import Method, guided, integrate
from spatiagraph.models.generator.inputs import (
    check_embedded,
    concatenate,
    control_rows,
    embedding,
    embedding_widths,
    expression,
    signature_features,
)
from spatiagraph.nn.condition import Condition, TransitionConditioner
from spatiagraph.nn.hub import PretrainedModel
from spatiagraph.nn.mode import evaluating
from spatiagraph.nn.unet import Injection, VelocityUNet, check_side
from spatiagraph.pairing.signature import Signature
from spatiagraph.pairing.transitions import Transitions, as_transitions

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"channels": 16, "num_blocks": 1, "dropout": 0.0, "condition_channels": 64},
    "small": {"channels": 64, "num_blocks": 2, "dropout": 0.3, "condition_channels": 512},
    "base": {
        "channels": 128,
        "multipliers": (2, 2, 2),
        "num_blocks": 4,
        "dropout": 0.3,
        "condition_channels": 512,
    },
}
"""``"tiny"`` trains on a laptop; ``"small"`` and ``"base"`` are the sizes of the paper."""


class ImageGenerator(PretrainedModel):
    r"""Flow from images of cells, or from noise, to images of the same cells in another state.

    A velocity network follows the condition of each cell: its embeddings (any that are in
    ``obsm``, of any level and any model), its genes, and a transition with what that does to genes
    and morphology on average. It knows nothing of the cell that it is compared with. After
    `SPATIA <https://arxiv.org/abs/2507.04704>`_.

    Args:
        image_channels: Channels of the images.
        size_px: Side of the images in pixels.
        window_um: Side of the window around a cell that they show.
        context: Key of ``obsm`` → width of each embedding to condition on.
        panel: Genes of an expression vector to condition on; ``None`` for none.
        transitions: Rows of (control, target, tag); empty for none.
        states_key: Column of ``obs`` that the states of the transitions are in.
        num_delta_genes: Genes of the signatures of transitions.
        num_delta_morphology: Features of their morphology signatures.
        source: Where a flow starts: at the ``"control"`` image or at ``"noise"``.
        noise: Standard deviation of noise that is added to a control image, see
            :class:`~spatiagraph.flow.LinearPath`.
        condition_channels: Size of the condition.
        injection: How it enters, see :class:`~spatiagraph.nn.VelocityUNet`.
        dropout: In the network.
        **unet: More arguments of :class:`~spatiagraph.nn.VelocityUNet`.

    Shapes:
        - **x**: images in [-1, 1], ``[B, C, H, W]``
        - **t**: ``[B]``
        - **condition**: what :meth:`embed` returned; ``None`` is the null condition
        - **output**: velocities, ``[B, C, H, W]``
    """

    keywords = VelocityUNet

    def __init__(
        self,
        *,
        image_channels: int,
        size_px: int = 32,
        window_um: float = 13.6,
        context: Mapping[str, int] | None = None,
        panel: GenePanel | None = None,
        transitions: Sequence[Sequence[str]] = (),
        states_key: str | None = None,
        num_delta_genes: int = 0,
        num_delta_morphology: int = 0,
        source: Literal["control", "noise"] = "control",
        noise: float = 0.0,
        condition_channels: int = 512,
        injection: Injection = "additive",
        dropout: float = 0.3,
        **unet: Any,
    ):
        super().__init__()
        check_side(size_px, unet.get("multipliers"))
        self.size_px, self.window_um = size_px, window_um
        self.image_channels = image_channels
        self.context = dict(context or {})
        self.panel = panel
        self.transitions = as_transitions(transitions) if len(transitions) else []
        self.states_key = states_key
        self.path = LinearPath(source=source, noise=noise)
        self.conditioner: TransitionConditioner | None = None
        if self.context or panel is not None or self.transitions:
            self.conditioner = TransitionConditioner(
                context_channels=tuple(self.context.values()),
                num_genes=0 if panel is None else len(panel),
                num_transitions=len(self.transitions),
                num_delta_genes=num_delta_genes,
                num_delta_morphology=num_delta_morphology,
                channels=condition_channels,
                dropout=min(dropout, 0.1),
            )
        self.unet = VelocityUNet(
            image_channels,
            condition_channels=None if self.conditioner is None else condition_channels,
            injection=injection,
            dropout=dropout,
            **unet,
        )

    @classmethod
    def for_slides(
        cls,
        slides: Sequence[Slide],
        preset: Literal["tiny", "small", "base"] = "tiny",
        *,
        context: Sequence[str] = (),
        use_genes: bool = False,
        panel: GenePanel | None = None,
        pairs: pd.DataFrame | None = None,
        transitions: Transitions = (),
        states_key: str | None = None,
        delta_genes: Signature | None = None,
        delta_morphology: Signature | None = None,
        size_px: int = 32,
        window_um: float = 13.6,
        seed: int = 0,
        **options: Any,
    ) -> "ImageGenerator":
        """A generator for some slides, with the scale of their embeddings.

        Args:
            slides: Training slides, embedded.
            preset: Size of the network, see :data:`PRESETS`.
            context: Keys of ``obsm`` to condition on.
            use_genes: Whether to condition on the expression of each cell.
            panel: Genes to condition on; those of all slides when not given.
            pairs: Pairs that it will be trained on; given, scales are those of their controls.
            transitions: What it is to learn, as given to :func:`~spatiagraph.pairing.pair_states`.
            states_key: Column of ``obs`` with the states.
            delta_genes: Result of :func:`~spatiagraph.pairing.gene_signature`.
            delta_morphology: Result of :func:`~spatiagraph.pairing.morphology_signature`.
            size_px: Side of the images in pixels.
            window_um: Side of their window.
            seed: Seed of the first weights.
            **options: More constructor arguments, beyond the preset.

        Raises:
            ValueError: A slide has no image, images differ in their channels, an embedding is
                missing or differs in width, or a signature lacks a transition.
        """
        if preset not in PRESETS:
            raise ValueError(f"Expected preset {', '.join(PRESETS)}, got {preset!r}")
        requested = as_transitions(transitions) if len(transitions) else []
        if use_genes and panel is None:
            panel = GenePanel.from_slides(list(slides))
        tags = [transition.tag for transition in requested]
        features = {
            name: signature_features(signature, tags, name)
            for name, signature in {
                "delta_genes": delta_genes,
                "delta_morphology": delta_morphology,
            }.items()
            if signature is not None
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generator = cls(
                image_channels=one_channel_number(slides),
                size_px=size_px,
                window_um=window_um,
                context=embedding_widths(slides, context),
                panel=panel if use_genes else None,
                transitions=[tuple(t) for t in requested],
                states_key=states_key,
                **{
                    **PRESETS[preset],
                    **{f"num_{name}": value.size(1) for name, value in features.items()},
                    **options,
                },
            )
        if generator.conditioner is not None:
            trained_on = [
                generator.known(slide, control_rows(slide, pairs, context))
                for slide in slides
                if pairs is None or (pairs["slide"] == slide.slide_id).any()
            ]
            generator.conditioner.initialize(concatenate(trained_on), **features)
        return generator

    def forward(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None
    ) -> Tensor:
        # images and times stay as exact as they are, whatever the weights are
        return self.unet(x.to(self.dtype), t, condition, keep).to(x.dtype)

    def embed(self, condition: Condition) -> Tensor | None:
        """Embed the condition of the network: ``[B, D]``, with cross-attention ``[B, S, D]``.

        ``None`` if the generator was built without anything to condition on.
        """
        if self.conditioner is None:
            return None
        return self.conditioner(condition, tokens=self.unet.injection == "cross")

    def known(self, slide: Slide, rows: np.ndarray, context: Tensor | None = None) -> Condition:
        """Condition of some cells of a slide, without a transition.

        Args:
            slide: The slide, embedded.
            rows: Rows of the cells, ``[B]``.
            context: Embeddings to take instead of those of the slide, side by side, ``[B, E]``.

        Raises:
            ValueError: The slide lacks an embedding, or has one of another width, or of some of the
                cells it has none.
        """
        genes = None if self.panel is None else expression(slide, self.panel, rows)
        if context is None:
            context = self._embeddings(slide, rows)
        if context is not None:
            check_embedded(context, slide, rows)
        return Condition(context, genes)

    def _embeddings(self, slide: Slide, rows: np.ndarray) -> Tensor | None:
        """Embeddings of some cells, side by side, ``[B, E]``."""
        parts = []
        for key, width in self.context.items():
            found = embedding(slide, key)
            if found.shape[1] != width:
                raise ValueError(
                    f"Expected obsm[{key!r}] of width {width} as in training, got "
                    f"{found.shape[1]} in slide {slide.slide_id!r}: embed it with the same model"
                )
            parts.append(torch.from_numpy(np.asarray(found[rows], dtype=np.float32)))
        return torch.cat(parts, dim=1) if parts else None

    def number_of(self, transition: str) -> int:
        """Number of a transition by its tag.

        Raises:
            ValueError: The generator does not know it.
        """
        tags = [t.tag for t in self.transitions]
        if transition not in tags:
            raise ValueError(
                f"Expected a transition of the generator, got {transition!r}. "
                f"{nearest(transition, tags)}"
            )
        return tags.index(transition)

    def start(self, image: Tensor | None, num: int, generator: Randomness = None) -> Tensor:
        """Starting points of the flows of some cells: their images, or noise.

        Args:
            image: In [0, 1], ``[B, C, H, W]``; not looked at where flows start at noise.
            num: How many cells, :math:`B`.
            generator: Source of randomness, or one for each cell.
        """
        shape = (num, self.image_channels, self.size_px, self.size_px)
        if self.path.source == "noise":
            image = torch.zeros(shape, device=self.device)
        elif image is None:
            raise ValueError("Expected images of the control cells: the flow starts at them")
        if tuple(image.shape) != shape:
            raise ValueError(
                f"Expected images {list(shape)} as in training, got {list(image.shape)}"
            )
        return self.path.start(2 * image - 1, generator=generator)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    @torch.no_grad()
    def generate(
        self,
        image: Tensor | None,
        condition: Condition,
        *,
        num_steps: int = 25,
        method: Method = "midpoint",
        guidance: float = 0.2,
        generator: Randomness = None,
        progress: Any = None,
    ) -> Tensor:
        r"""Follow the flow of some cells to its end.

        Args:
            image: Control images in [0, 1], ``[B, C, H, W]``.
            condition: Of these cells.
            num_steps: Steps of the integration.
            method: Its rule, see :func:`~spatiagraph.flow.integrate`.
            guidance: :math:`s` of :func:`~spatiagraph.flow.guided`: 0 for one network pass.
            generator: Source of randomness, or one for each cell, where flows start at noise.
            progress: Called after each step with the number of steps done and of all.

        Returns:
            Images in [0, 1], ``[B, C, H, W]``.
        """
        with evaluating(self):
            embedded = self.embed(condition)
            num = len(embedded) if embedded is not None else len(image) if image is not None else 1
            end = integrate(
                self if embedded is None else guided(self, guidance),
                self.start(image, num, generator),
                embedded,
                method=method,
                num_steps=num_steps,
                progress=progress,
            )
        return (0.5 * end.x + 0.5).clamp(0, 1)
