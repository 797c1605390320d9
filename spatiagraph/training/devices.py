"""Devices that networks run on."""

import torch


def as_device(device: str | torch.device) -> torch.device:
    """A device by its name; ``"auto"`` is CUDA where there is one, and else the CPU.

    Args:
        device: ``"auto"``, or what PyTorch knows.

    Raises:
        ValueError: This machine has no such device, or none that holds values (``"meta"``).
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.ones(1, device=device).cpu()
    except (RuntimeError, AssertionError) as err:  # the latter from a torch without CUDA
        why = str(err).splitlines()[0]
        raise ValueError(f"Expected a device of this machine, got {str(device)!r}: {why}") from err
    return torch.device(device)
