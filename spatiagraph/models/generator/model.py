"""Generator of cell images from embeddings, under a transition."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from spatiagraph.data.agreement import one_channel_number
from spatiagraph.data.checks import nearest
from spatiagraph.data.morphology import MORPHOLOGY
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import CELL, Crop
from spatiagraph.data.slide import Slide
from spatiagraph.flow.path import LinearPath
from spatiagraph.flow.randomness import Randomness
from spatiagraph.flow.sampling import Sampling
from spatiagraph.flow.solve import guided, integrate
from spatiagraph.models.generator.inputs import (
    check_embedded,
    concatenate,
    control_rows,
    embedding,
    embedding_widths,
    expression,
    pair_images,
    signature_features,
)
from spatiagraph.models.generator.saved import from_flags
from spatiagraph.models.generator.size import TINY, GeneratorSize
from spatiagraph.nn.condition import Condition, TransitionConditioner
from spatiagraph.nn.gaussian_map import GaussianMap
from spatiagraph.nn.hub import PretrainedModel
from spatiagraph.nn.image_latents import ImageLatents
from spatiagraph.nn.mode import evaluating
from spatiagraph.nn.unet import VelocityUNet
from spatiagraph.pairing.signature import Signature
from spatiagraph.pairing.transitions import Transitions, as_transitions

_AT_ONCE = 256  # images that an autoencoder encodes


class ImageGenerator(PretrainedModel):
    r"""Flow from images of cells, or from noise, to images of the same cells in another state.

    A velocity network follows the condition of each cell: its embeddings (any that are in
    ``obsm``, of any level and any model), its genes, and a transition with what that does to genes
    and morphology on average. It knows nothing of the cell that it is compared with. After
    `SPATIA <https://arxiv.org/abs/2507.04704>`_.

    Build it from parts, or with :meth:`for_slides`.

    Args:
        unet: The velocity network.
        conditioner: Network of the condition; ``None`` for a generator without.
        crop: Window around a cell that images show, and their size.
        path: From where to where a flow leads.
        transport: Map of each transition that control images go through before their flow starts,
            so that it starts with the mean and covariance of the other state; ``None`` for none.
        latents: Autoencoder whose latents the flow is between, which learns no more here; ``None``
            for pixels.
        context: Key of ``obsm`` → width of each embedding to condition on.
        panel: Genes of an expression vector to condition on; ``None`` for none.
        transitions: Rows of (control, target, tag); empty for none.
        states_key: Column of ``obs`` that the states of the transitions are in.

    Shapes:
        - **x**: images in [-1, 1] ``[B, C, H, W]``, or their latents ``[B, L, h, w]``
        - **t**: ``[B]``
        - **condition**: what :meth:`embed` returned; ``None`` is the null condition
        - **output**: velocities of them

    Raises:
        ValueError: The parts do not fit together.
    """

    def __init__(
        self,
        unet: VelocityUNet,
        conditioner: TransitionConditioner | None = None,
        *,
        crop: Crop = Crop(),
        path: LinearPath = LinearPath(),
        transport: GaussianMap | None = None,
        latents: ImageLatents | None = None,
        context: Mapping[str, int] | None = None,
        panel: GenePanel | None = None,
        transitions: Sequence[Sequence[str]] = (),
        states_key: str | None = None,
    ):
        super().__init__()
        if crop.of != CELL or crop.window_um is None or not crop.same_for_all:
            raise ValueError(f"Expected a 'crop' of cells with one window for all, got {crop}")
        stride = unet.stride * (1 if latents is None else latents.stride)
        if crop.size_px % stride:
            raise ValueError(f"Expected 'size_px' divisible by {stride}, got {crop.size_px}")
        if latents is not None and latents.latent_channels != unet.image_channels:
            raise ValueError(
                f"Expected a 'unet' on the {latents.latent_channels} channels of the latents, got "
                f"one on {unet.image_channels}"
            )
        self.crop = crop
        self.size_px, self.window_um = crop.size_px, crop.window_um
        self.image_channels = (latents or unet).image_channels
        self.context = dict(context or {})
        self.panel = panel
        self.transitions = as_transitions(transitions) if len(transitions) else []
        self.states_key = states_key
        self.path = path
        self._check_parts(unet, conditioner)
        self.conditioner = conditioner
        self.unet = unet
        self.transport = transport
        self.latents = None if latents is None else latents.requires_grad_(False)
        if transport is not None:
            self._check_transport(transport)

    def _check_parts(self, unet: VelocityUNet, conditioner: TransitionConditioner | None) -> None:
        """Refuse networks of another condition than the one that is looked up."""
        wanted = {
            "embeddings of width": tuple(self.context.values()),
            "genes": 0 if self.panel is None else len(self.panel),
            "transitions": len(self.transitions),
        }
        found: dict[str, Any] = dict.fromkeys(wanted, 0) | {"embeddings of width": ()}
        channels = None
        if conditioner is not None:
            found = {
                "embeddings of width": conditioner.context_channels,
                "genes": conditioner.num_genes,
                "transitions": conditioner.num_transitions,
            }
            channels = conditioner.channels
        for name, value in wanted.items():
            if found[name] != value:
                raise ValueError(
                    f"Expected a 'conditioner' of {name} {value}, got one of {found[name]}"
                )
        if unet.condition_channels != channels:
            raise ValueError(
                f"Expected a 'unet' with a condition of {channels} channels as the conditioner "
                f"has, got {unet.condition_channels}"
            )

    def _check_transport(self, transport: GaussianMap) -> None:
        """Refuse a map of other images or transitions, or where no image is mapped."""
        if self.path.source == "noise":
            raise ValueError("Expected no 'transport' where flows start at noise")
        found, wanted = (transport.num_groups, transport.shape), (len(self.transitions), self.shape)
        if found != wanted:
            raise ValueError(
                f"Expected a 'transport' of {wanted[0]} transitions of images {list(wanted[1])}, "
                f"got one of {found[0]} of {list(found[1])}"
            )

    @classmethod
    def for_slides(
        cls,
        slides: Sequence[Slide],
        size: GeneratorSize = TINY,
        *,
        context: Sequence[str] = (),
        panel: GenePanel | None = None,
        transitions: Transitions = (),
        states_key: str | None = None,
        signatures: Sequence[Literal["genes", "morphology"]] = (),
        crop: Crop = Crop(),
        seed: int = 0,
        **parts: Any,
    ) -> Self:
        """A generator for some slides, with the scale of their embeddings.

        Args:
            slides: Training slides, embedded.
            size: Widths and depths of the networks.
            context: Keys of ``obsm`` to condition on.
            panel: Genes whose expression to condition on, such as
                ``GenePanel.from_slides(slides)``; ``None`` for none.
            transitions: What it is to learn, as given to :func:`~spatiagraph.pairing.pair_states`.
            states_key: Column of ``obs`` with the states.
            signatures: What transitions do on average that is conditioned on: to ``"genes"``, those
                of all slides, and to ``"morphology"``. They are filled in by :meth:`initialize` or
                :func:`~spatiagraph.training.fit_transitions`.
            crop: Window around a cell that images show, and their size.
            seed: Seed of the first weights.
            **parts: ``path``, ``latents`` and ``transport``, as above; where flows of transitions
                start at images, a :class:`~spatiagraph.nn.GaussianMap` unless ``transport=None``.

        Raises:
            ValueError: A slide has no image, images differ in their channels, or an embedding is
                missing or differs in width.
        """
        if unknown := set(signatures) - {"genes", "morphology"}:
            raise ValueError(f"Expected signatures of genes or morphology, got {sorted(unknown)}")
        requested = as_transitions(transitions) if len(transitions) else []
        channels, widths = one_channel_number(slides), embedding_widths(slides, context)
        latents: ImageLatents | None = parts.get("latents")
        if latents is not None and latents.image_channels != channels:
            raise ValueError(
                f"Expected 'latents' of {channels} image channels as the slides have, got "
                f"{latents.image_channels}"
            )
        num_genes = len(GenePanel.from_slides(list(slides))) if "genes" in signatures else 0
        ends = channels if latents is None else latents.latent_channels
        if requested and parts.get("path", LinearPath()).source == "control":
            side = crop.size_px // (1 if latents is None else latents.stride)
            parts.setdefault("transport", GaussianMap((ends, side, side), len(requested)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            conditioner = size.conditioner(
                tuple(widths.values()),
                num_genes=0 if panel is None else len(panel),
                num_transitions=len(requested),
                num_delta_genes=num_genes,
                num_delta_morphology=len(MORPHOLOGY) if "morphology" in signatures else 0,
            )
            generator = cls(
                size.unet(ends, conditioned=conditioner is not None),
                conditioner,
                crop=crop,
                **parts,
                context=widths,
                panel=panel,
                transitions=[tuple(t) for t in requested],
                states_key=states_key,
            )
        generator.initialize(slides)
        return generator

    @classmethod
    def upgrade_config(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Flags of version 0.1.0 as parts."""
        return from_flags(config) if "image_channels" in config else config

    def initialize(
        self,
        slides: Sequence[Slide],
        pairs: pd.DataFrame | None = None,
        *,
        delta_genes: Signature | None = None,
        delta_morphology: Signature | None = None,
    ) -> None:
        """Take scales from training cells, keep signatures, and fit the map of each transition.

        Args:
            slides: Training slides, embedded.
            pairs: Pairs to be trained on: scales are those of their controls, maps those of their
                images. When not given, scales are of all embedded cells, and maps stay as they are.
            delta_genes: Result of :func:`~spatiagraph.pairing.gene_signature`.
            delta_morphology: Result of :func:`~spatiagraph.pairing.morphology_signature`.

        Raises:
            ValueError: A signature lacks a transition or is of another width than was announced.
        """
        if self.conditioner is None:
            return
        tags = [transition.tag for transition in self.transitions]
        given = {"delta_genes": delta_genes, "delta_morphology": delta_morphology}
        known = [
            self.known(slide, control_rows(slide, pairs, self.context))
            for slide in slides
            if pairs is None or (pairs["slide"] == slide.slide_id).any()
        ]
        self.conditioner.initialize(
            concatenate(known),
            **{
                name: signature_features(signature, tags, name)
                for name, signature in given.items()
                if signature is not None
            },
        )
        if self.transport is not None and pairs is not None:
            found = pair_images(slides, pairs, self.crop, tags)
            self.transport.initialize(
                self._encoded(found.control),
                self._encoded(found.target),
                found.transition.to(self.device),
            )

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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an endpoint of flows: of an image, or of its latents."""
        side = self.size_px // (1 if self.latents is None else self.latents.stride)
        return self.unet.image_channels, side, side

    def start(
        self,
        image: Tensor | None,
        num: int,
        generator: Randomness = None,
        *,
        transition: Tensor | None = None,
    ) -> Tensor:
        """Starting points of flows: images of cells, mapped or as they are, or noise.

        Args:
            image: In [0, 1], ``[B, C, H, W]``; not looked at where flows start at noise.
            num: How many cells, :math:`B`.
            generator: Source of randomness, or one for each cell.
            transition: Transition of each whose map to take, ``[B]``; ``None`` leaves images as
                they are.
        """
        shape = (num, self.image_channels, self.size_px, self.size_px)
        if self.path.source == "noise":
            zeros = torch.zeros(num, *self.shape, device=self.device)
            return self.path.start(zeros, generator=generator)
        if image is None:
            raise ValueError("Expected images of the control cells: the flow starts at them")
        if tuple(image.shape) != shape:
            raise ValueError(
                f"Expected images {list(shape)} as in training, got {list(image.shape)}"
            )
        x = self.encode(image)
        if self.transport is not None and transition is not None:
            x = self.transport(x, transition)
        return self.path.start(x, generator=generator)

    def encode(self, image: Tensor) -> Tensor:
        """Encode images as endpoints of flows: their values in [-1, 1], or their latents.

        Args:
            image: In [0, 1], ``[B, C, H, W]``.
        """
        x = 2 * image - 1
        if self.latents is None:
            return x
        with torch.no_grad():
            return self.latents.encode(x).to(x.dtype)

    def _encoded(self, image: Tensor) -> Tensor:
        """The same of many images, some at a time."""
        return torch.cat([self.encode(part.to(self.device)) for part in image.split(_AT_ONCE)])

    def decode(self, x: Tensor) -> Tensor:
        """Decode endpoints of flows to images, about in [0, 1], ``[B, C, H, W]``."""
        if self.latents is not None:
            x = self.latents.decode(x).to(x.dtype)
        return 0.5 * x + 0.5

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
        sampling: Sampling = Sampling(),
        *,
        generator: Randomness = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        r"""Follow the flow of some cells to its end.

        Args:
            image: Control images in [0, 1], ``[B, C, H, W]``.
            condition: Of these cells.
            sampling: Steps, rule, guidance and seed.
            generator: Source of the noise, or one for each cell, in place of the seed.
            progress: Called after each step with the number of steps done and of all.

        Returns:
            Images in [0, 1], ``[B, C, H, W]``.
        """
        with evaluating(self):
            embedded = self.embed(condition)
            num = len(embedded) if embedded is not None else len(image) if image is not None else 1
            if generator is None:
                generator = torch.Generator().manual_seed(sampling.seed)
            end = integrate(
                self if embedded is None else guided(self, sampling.guidance),
                self.start(image, num, generator, transition=condition.transition),
                embedded,
                method=sampling.method,
                num_steps=sampling.num_steps,
                progress=progress,
            )
            image = self.decode(end.x)
        return image.clamp(0, 1)
