"""Models trained on some donors, applied to held-out ones: embeddings for transfer."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatiagraph.data.slide import Slide, check_unique_ids
from spatiagraph.inference.embedding import embed_data
from spatiagraph.models.base import SlideModel

Train = Callable[[Sequence[Slide]], SlideModel]
"""Training slides → a model that has seen no held-out slide."""


class ZeroShot:
    """Embeddings of slides by a model that has seen only those with training cells.

    A model is trained once for each set of training slides, whatever levels are asked for:
    ``score_transfer({"niche": ZeroShot(slides, train).level("niche")}, …)``.

    Args:
        slides: All slides; their cells one after the other are the cells of the masks.
        train: Makes a trained model of some of them.

    Raises:
        ValueError: Two slides have one id.
    """

    def __init__(self, slides: Sequence[Slide], train: Train):
        check_unique_ids(slides)
        self.slides = list(slides)
        self.train = train
        self._models: dict[tuple[int, ...], SlideModel] = {}
        self._found: dict[tuple[int, ...], dict[str, NDArray[np.float32]]] = {}

    def level(self, level: str) -> Callable[[NDArray[np.bool_]], NDArray[np.float32]]:
        """Function of the mask of training cells that gives the embedding of all cells.

        Args:
            level: ``"cell"``, ``"niche"``, or another level of the model. One that it does not have
                is refused when the function is called.
        """

        def embed(train: NDArray[np.bool_]) -> NDArray[np.float32]:
            found = self.embeddings(train)
            if level not in found:
                raise ValueError(f"Expected a level among {', '.join(found)}, got {level!r}")
            return found[level]

        return embed

    def embeddings(self, train: ArrayLike) -> dict[str, NDArray[np.float32]]:
        """Level → embedding of all cells ``[N, D]``.

        Args:
            train: Training cells, ``[N]``, whole slides.

        Raises:
            ValueError: A slide is on both sides, or there is no training cell.
        """
        seen = self._seen(train)
        if seen not in self._found:
            model = self.model(train)
            each = [embed_data(model, model.prepare(slide)) for slide in self.slides]
            self._found[seen] = {
                level: np.concatenate([one[level] for one in each]) for level in each[0]
            }
        return self._found[seen]

    def model(self, train: ArrayLike) -> SlideModel:
        """Model that has seen only the slides with training cells, made once.

        Args:
            train: Training cells, ``[N]``, whole slides.

        Raises:
            ValueError: A slide is on both sides, or there is no training cell.
        """
        seen = self._seen(train)
        if seen not in self._models:
            self._models[seen] = self.train([self.slides[number] for number in seen])
        return self._models[seen]

    def _seen(self, train: ArrayLike) -> tuple[int, ...]:
        """Numbers of the slides with training cells."""
        mask = np.asarray(train)
        sizes = [slide.num_cells for slide in self.slides]
        if mask.shape != (sum(sizes),) or mask.dtype != bool:
            raise ValueError(
                f"Expected a mask of {sum(sizes)} cells, got {mask.dtype} {list(mask.shape)}"
            )
        parts = np.split(mask, np.cumsum(sizes)[:-1])
        for slide, part in zip(self.slides, parts, strict=True):
            if part.any() != part.all():
                raise ValueError(
                    f"Expected whole slides to train on, got {int(part.sum())} of "
                    f"{len(part)} cells of {slide.slide_id!r}"
                )
        seen = tuple(number for number, part in enumerate(parts) if part.all())
        if not seen:
            raise ValueError("Expected slides to train on, got none")
        return seen
