"""Learning the flow of images from weak pairs of cells."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from spatiagraph.data.loader import PairBatch
from spatiagraph.flow.sampling import Sampling
from spatiagraph.flow.times import sample_times
from spatiagraph.losses.condition_contrast import condition_contrast_loss, wrong_transitions
from spatiagraph.losses.flow_matching import confidence_weights, velocity_error
from spatiagraph.losses.sliced_wasserstein import pyramid_distance, sliced_wasserstein_loss
from spatiagraph.tasks.base import LossOutput, Task, Watched

if TYPE_CHECKING:  # diffusers takes seconds, and every training looks at all tasks
    from spatiagraph.models.generator import ImageGenerator

MIN_MORPHOLOGY = 8
"""Pairs of a transition in a batch, below which their morphology is not compared."""

_SAMPLING = Sampling(3, guidance=0.0)  # of validation images


class ImageFlow(Task):
    r"""Confidence-aware conditional flow matching, with two terms that keep it honest.

    .. math::
        L = \mathrm{E}[w_i \, \lVert \mathbf{v}(\mathbf{x}_t, t \,|\, \mathbf{z}_i) -
        \mathbf{u} \rVert^2] + \rho \, L_\mathrm{contrast} + \lambda \, L_\mathrm{morphology}

    Uncertain pairs weigh less; a wrong transition must explain a pair worse than its own does; and
    images must end up with the morphology of target cells, as distributions, in the eyes of a
    frozen network. After `SPATIA <https://arxiv.org/abs/2507.04704>`_.

    Batches are those of a :class:`~spatiagraph.data.PairLoader`. A validation loss says little of
    the images, which may lose their detail while it falls. What says which weights are best is
    ``image_distance``, of generated images to targets, as distributions (see
    :func:`~spatiagraph.losses.pyramid_distance`).

    Args:
        model: The generator.
        profile: Network of morphology (see :class:`~spatiagraph.nn.MorphologyProfile`), frozen
            here; needed for its term.
        gamma: How much certain pairs are preferred, :math:`w = c^\gamma / \mathrm{E}[c^\gamma]`.
        mean_confidence: :math:`\mathrm{E}[c^\gamma]` of the training pairs; that of each batch
            when not given.
        contrast_weight: :math:`\rho`; off where there is only one transition.
        margin: By how much the right transition must win, in units of the mean error.
        morphology_weight: :math:`\lambda`; needs ``profile``.
        drop_probability: Share of the pairs that lose their condition, for guidance.
        flip_probability: Share of the pairs that are mirrored, both images alike, on each axis.
        schedule: Times to learn at, see :func:`~spatiagraph.flow.sample_times`.

    Raises:
        ValueError: A morphology term without its network, or a probability out of [0, 1].
    """

    model: "ImageGenerator"
    watched = Watched("image_distance")

    def __init__(
        self,
        model: "ImageGenerator",
        profile: nn.Module | None = None,
        *,
        gamma: float = 1.0,
        mean_confidence: float | None = None,
        contrast_weight: float = 0.1,
        margin: float = 0.1,
        morphology_weight: float | None = None,
        drop_probability: float = 0.1,
        flip_probability: float = 0.3,
        schedule: Literal["uniform", "skewed"] = "uniform",
    ):
        super().__init__()
        if morphology_weight is None:
            morphology_weight = 0.0 if profile is None else 0.1
        if morphology_weight and profile is None:
            raise ValueError(
                "Expected 'profile' with morphology_weight: a network that was never trained "
                "would align nothing"
            )
        for name, value in (("drop", drop_probability), ("flip", flip_probability)):
            if not 0 <= value <= 1:
                raise ValueError(f"Expected '{name}_probability' in [0, 1], got {value}")
        self.model = model
        self.profile = None if profile is None else profile.requires_grad_(False)
        self.gamma, self.mean_confidence = gamma, mean_confidence
        self.contrast_weight, self.margin = contrast_weight, margin
        self.morphology_weight = morphology_weight
        self.drop_probability, self.flip_probability = drop_probability, flip_probability
        self.schedule: Literal["uniform", "skewed"] = schedule

    def train(self, mode: bool = True) -> "ImageFlow":
        super().train(mode)
        if self.profile is not None:
            self.profile.eval()
        return self

    def loss(self, batch: PairBatch, generator: torch.Generator | None = None) -> LossOutput:
        image, target = _mirrored(batch.image, batch.target_image, self.flip_probability, generator)
        num, device = len(image), image.device
        x0 = self.model.start(image, num, generator, transition=batch.condition.transition)
        t = sample_times(num, schedule=self.schedule, generator=generator, device=device)
        point = self.model.path.at(x0, self.model.encode(target), t)
        known = batch.condition
        keep = torch.rand(num, generator=generator, device=device) >= self.drop_probability
        velocity = self.model(point.x, t, self.model.embed(known), keep)
        error = velocity_error(velocity, point.velocity)
        weight = confidence_weights(batch.confidence, gamma=self.gamma, mean=self.mean_confidence)
        parts = {"flow": (weight * error).mean()}
        loss = parts["flow"]
        num_transitions = len(self.model.transitions)
        if self.contrast_weight and num_transitions > 1:
            assert known.transition is not None
            wrong = wrong_transitions(known.transition, num_transitions, generator=generator)
            other = known._replace(transition=wrong)
            velocity_wrong = self.model(point.x, t, self.model.embed(other), keep)
            error_wrong = velocity_error(velocity_wrong, point.velocity)
            parts["contrast"] = error.new_zeros(())  # where no pair kept its condition
            if bool(keep.any()):
                parts["contrast"] = condition_contrast_loss(
                    error[keep], error_wrong[keep], margin=self.margin
                )
            loss = loss + self.contrast_weight * parts["contrast"]
        if self.morphology_weight and self.profile is not None:
            end = self.model.path.endpoint(point.x, velocity, t)
            parts["morphology"] = sliced_wasserstein_loss(
                self.profile(self.model.decode(end)),
                self.profile(target),
                group=known.transition,
                min_size=MIN_MORPHOLOGY,
                generator=generator,
            )
            loss = loss + self.morphology_weight * parts["morphology"]
        if not self.training:
            parts["image_distance"] = self._image_distance(batch, generator)
        return LossOutput(loss, {name: value.detach() for name, value in parts.items()}, num)

    def _image_distance(self, batch: PairBatch, generator: torch.Generator | None) -> Tensor:
        """Distance of what the generator makes of controls to their targets."""
        made = self.model.generate(batch.image, batch.condition, _SAMPLING, generator=generator)
        return pyramid_distance(
            made, batch.target_image, group=batch.condition.transition, generator=generator
        )


def _mirrored(
    image: Tensor, target: Tensor, probability: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Both images of some pairs, mirrored alike."""
    for axis in (2, 3):
        drawn = torch.rand(len(image), generator=generator, device=image.device) < probability
        mirrored = drawn.view(-1, 1, 1, 1)
        image = torch.where(mirrored, image.flip(axis), image)
        target = torch.where(mirrored, target.flip(axis), target)
    return image, target
