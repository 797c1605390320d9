"""``shard_encoder``: an image encoder whose weights are divided among processes (FSDP2)."""

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from spatiagraph.nn.image import TimmEncoder


def shard_encoder(encoder: TimmEncoder, mesh: DeviceMesh) -> None:
    """Divide weights, gradients and the state of their optimiser among processes, in place.

    Each process keeps its share and gathers the blocks of the encoder one at a time as they run.
    Gradients are averaged over processes, as DDP does. For a loop of one's own; an optimiser is to
    be made afterwards, and every process has to call the encoder in every step.

    `"PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel"
    <https://arxiv.org/abs/2304.11277>`_; ``torch.distributed.fsdp.fully_shard``.

    Args:
        encoder: The encoder, such as that of ``base``.
        mesh: The processes, ``init_device_mesh("cuda", (world_size,))``.
    """
    from torch.distributed.fsdp import fully_shard

    for block in getattr(encoder.backbone, "blocks", ()):
        fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh)


def gathered_weights(encoder: TimmEncoder) -> dict[str, Tensor]:
    """Weights of an encoder that :func:`shard_encoder` divided, whole, in every process.

    Every process has to call it; ``load_state_dict`` of an encoder that was not divided takes them.

    Args:
        encoder: The encoder.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    found = get_model_state_dict(encoder, options=StateDictOptions(full_state_dict=True))
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
