"""Optional packages: imported where they are used, or refused with the line that installs them."""

import importlib
from types import ModuleType


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Name to import, such as ``"spatialdata"``.
        extra: Extra of spatiagraph that brings it.
        purpose: What it is needed for, for the message.

    Raises:
        ImportError: It is not installed; gives the install line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as err:
        if err.name is None or err.name.split(".")[0] != module.split(".")[0]:
            raise  # the package is there, one of its own requirements is not
        raise ImportError(
            f"{purpose} needs {module}, which is not installed: pip install 'spatiagraph[{extra}]'"
        ) from err
