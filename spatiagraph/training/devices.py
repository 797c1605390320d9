"""Where networks run."""

import torch


def as_device(device: str | torch.device) -> torch.device:
    """A device by its name; ``"auto"`` is CUDA where there is one, and else the CPU.

    Args:
        device: ``"auto"``, or what PyTorch knows.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
