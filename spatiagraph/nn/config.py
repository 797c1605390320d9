"""Modules that remember how they were built, so that a model can be saved without pickling."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from spatiagraph._savable import savable


class Configurable(nn.Module):
    """A module whose constructor arguments are kept in ``init_args``.

    Sub-classes write an ordinary ``__init__`` with annotations, which are checked when a saved
    module is read; arguments must be plain values (numbers, strings, lists, ``None``) or other
    :class:`Configurable` objects. Those of this package may stand in a saved file unless they say
    ``abstract=True``. One that has changed reads its older arguments by a class method
    ``upgrade_config(args) → args``.

    Attributes:
        unsaved: Arguments that say where first weights come from, and what to save instead: a saved
            module has its own. A file that holds anything else there is refused.
        keywords: Class whose arguments ``**kwargs`` stands for, if there are any.
    """

    init_args: dict[str, Any]
    unsaved: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        init = cls.__init__
        signature = inspect.signature(init)

        @functools.wraps(init)
        def recording_init(self: Configurable, *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            arguments = dict(list(bound.arguments.items())[1:])
            for name, parameter in signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    arguments.update(arguments.pop(name, {}))
            init(self, *args, **kwargs)
            self.init_args = arguments

        cls.__init__ = recording_init  # type: ignore[assignment, method-assign]
        if not abstract:
            savable(cls)

    def config_args(self) -> dict[str, Any]:
        """Arguments that rebuild this module before its weights are loaded."""
        return {**self.init_args, **self.unsaved}
