"""``Run``: options of a training run, the same for everything that is trained."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from spatiagraph.training.schedule import CosineSchedule

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

NUM_STEPS = 200
"""Steps of the optimiser of a run that says nothing of its length, nor does its model."""
LR = 1e-3
"""Learning rate, likewise."""
WEIGHT_DECAY = 0.01
"""Decoupled weight decay, likewise."""
_HIGHEST = 1000  # rate and decay: more than anyone takes, and far from what overflows


@dataclass(frozen=True)
class Run:
    """Options of a training run: how long, on which device, and what is kept of it.

    ``fit``, ``train``, ``fit_generator``, ``fit_morphology`` and ``fit_transitions`` take one as
    ``run=``, or its fields by name: ``fit(model, slide, max_epochs=5, out="run")``. Fields that are
    named go before those of ``run``.

    With ``out``, a run keeps ``history.csv``, a checkpoint after every epoch and, at the end, the
    model under ``out/model``; one of slides also as it was before the first step, under
    ``out/start``, see :func:`~spatiagraph.training.load_start`. Called again after an interruption
    it goes on where it stopped and ends with the weights of an uninterrupted run; called with other
    data or options it refuses.

    Attributes:
        max_epochs: Passes over the batches, at most. Where neither this nor ``max_steps`` is given,
            whole passes until the steps that the model asks for are taken.
        max_steps: Steps of the optimiser, at most.
        min_steps: Steps before which ``patience`` stops nothing; passes go on until then where no
            number of them is given.
        lr: Peak learning rate; that of the model when ``None``.
        weight_decay: Decoupled weight decay of matrices, those that a model has ``anchored``
            towards their start; that of the model when ``None``. Vectors, gates and norms have
            none.
        schedule: How learning rate and weight decay go on, in place of a warm-up over a twentieth
            of the steps and a cosine to a hundredth of the rate.
        average: Decay of an exponential moving average of the weights, which is validated and which
            the model ends with; see :class:`~spatiagraph.training.WarmAverage`. ``None`` for none.
        accumulate_grad_batches: Batches whose gradients make one step.
        patience: Epochs without a lower validation loss, or a better score where the task watches
            one, after which training stops; ``None`` trains to the end. Where there is validation,
            the model ends with the weights of its best score in any case, and those are of the
            start if none was better.
        seed: Seed of the order of batches, of masks and of dropout.
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"``, … as in Lightning.
        devices: Devices to use, as in Lightning; every one gets batches of its own.
        strategy: ``"ddp"``, … as in Lightning; on several devices ``"auto"`` is DDP that allows for
            parts of the model which a batch has nothing for. Every process holds all weights:
            strategies that divide them are refused.
        precision: ``"32-true"``, ``"bf16-mixed"``, … as in Lightning.
        num_workers: Worker processes that prepare batches; loaders that are handed in have theirs.
        out: Folder of the run; nothing is written without it.
        resume: Go on from the folder's last checkpoint; ``False`` refuses a folder with a run.
        progress: Show progress bars and what Lightning has to say.
        logger: Lightning loggers (W&B, TensorBoard, MLflow, …) of loss and validation loss, their
            parts and the health of the run; a TensorBoard log in ``out``, if installed, when not
            given; ``False`` for none.
        callbacks: More Lightning callbacks; ``"loss"`` and, with validation, ``"val_loss"`` can be
            monitored.

    Raises:
        ValueError: An option is out of range.

    Examples:
        >>> Run(max_epochs=5).replace(lr=1e-2).lr
        0.01
    """

    max_epochs: int | None = None
    max_steps: int | None = None
    min_steps: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    schedule: CosineSchedule | None = None
    average: float | None = None
    accumulate_grad_batches: int = 1
    patience: int | None = None
    seed: int = 0
    accelerator: str = "auto"
    devices: int | str | Sequence[int] = "auto"
    strategy: Any = "auto"
    precision: Any = "32-true"
    num_workers: int = 0
    out: str | os.PathLike[str] | None = None
    resume: bool = True
    progress: bool = True
    logger: "Logger | Sequence[Logger] | bool | None" = None
    callbacks: "Callback | Sequence[Callback]" = ()

    def __post_init__(self) -> None:
        if self.max_epochs is not None and self.max_epochs < 1:
            raise ValueError(f"Expected at least one epoch, got max_epochs={self.max_epochs}")
        if self.lr is not None and not 0 < self.lr <= _HIGHEST:
            raise ValueError(
                f"Expected a learning rate in (0, {_HIGHEST}], such as 1e-3, got lr={self.lr}"
            )
        if self.weight_decay is not None and not 0 <= self.weight_decay <= _HIGHEST:
            raise ValueError(f"Expected 'weight_decay' in [0, {_HIGHEST}], got {self.weight_decay}")
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(f"Expected 'average' as a decay in [0, 1), got {self.average}")
        least = {
            "max_steps": 1,
            "min_steps": 1,
            "accumulate_grad_batches": 1,
            "patience": 1,
            "num_workers": 0,
        }
        for name, limit in least.items():
            value = getattr(self, name)
            if value is not None and not value >= limit:
                raise ValueError(f"Expected {name!r} of at least {limit}, got {value}")

    def replace(self, **options: Any) -> "Run":
        """The same run with other options.

        Args:
            **options: Fields by name.

        Raises:
            ValueError: There is no such field, or a value is out of range.
        """
        return run_of(self, options)

    def filled(self, *, lr: float = LR, weight_decay: float = WEIGHT_DECAY) -> "Run":
        """The same run with what it leaves open.

        Args:
            lr: Learning rate, where it has none.
            weight_decay: Weight decay, where it has none.
        """
        return replace(
            self,
            lr=lr if self.lr is None else self.lr,
            weight_decay=weight_decay if self.weight_decay is None else self.weight_decay,
        )

    def epochs(self, steps_per_epoch: int, num_steps: int = NUM_STEPS) -> int | None:
        """Passes over the batches; ``None`` where ``max_steps`` ends the run.

        Args:
            steps_per_epoch: Steps of the optimiser in a pass.
            num_steps: Steps to take where the run says neither passes nor steps.

        Examples:
            >>> Run().epochs(8, 200), Run(min_steps=300).epochs(8, 200), Run(max_epochs=5).epochs(8)
            (25, 38, 5)
        """
        if self.max_epochs is not None or self.max_steps is not None:
            return self.max_epochs
        return -(-max(num_steps, self.min_steps or 0) // max(1, steps_per_epoch))

    @property
    def record(self) -> dict[str, Any]:
        """Options that change the result, as plain values."""
        kept = (
            "max_epochs", "max_steps", "min_steps", "lr", "weight_decay", "average",
            "accumulate_grad_batches", "patience",
        )  # fmt: skip
        schedule = {} if self.schedule is None else {"schedule": asdict(self.schedule)}
        return {
            **schedule,
            **{name: getattr(self, name) for name in kept},
            "precision": str(self.precision),
            "seed": self.seed,
        }


def run_of(
    run: Run | None,
    options: Mapping[str, Any],
    *,
    default: Run | None = None,
    taken_by: Callable[..., Any] | None = None,
) -> Run:
    """The run that was given, as an object, by the names of its fields, or both.

    Args:
        run: The object, if one was given.
        options: Fields by name, which go before those of the object.
        default: Where neither says anything; ``Run()`` when not given.
        taken_by: Function that was called, whose own arguments are offered beside the fields.

    Raises:
        ValueError: There is no such field; names the nearest.
    """
    base = run if run is not None else Run() if default is None else default
    if not isinstance(base, Run):
        raise ValueError(f"Expected 'run' as a Run, got a {type(base).__name__}: Run(max_epochs=…)")
    known = [field.name for field in fields(Run)]
    own = [] if taken_by is None else list(inspect.signature(taken_by).parameters)
    for name in options:
        if name not in known:
            near = get_close_matches(name, [*known, *own], n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            where = "" if taken_by is None else f" of {taken_by.__name__}()"
            raise ValueError(f"Expected an argument{where} or a field of Run, got {name!r}: {mend}")
    return replace(base, **options)
