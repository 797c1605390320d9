"""Arguments of timm models that may be chosen: shapes and layers, no source of weights."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from spatiagraph._config import BUILDING_ERRORS
from spatiagraph._json import Schema, validated

Size = Annotated[int, Field(ge=0, le=2**16)]


class TimmOptions(Schema):
    """Arguments that size and shape a timm model.

    What timm takes besides names files and addresses (``pretrained_cfg``, ``checkpoint_path``,
    ``cache_dir``) or code.
    """

    img_size: Size | tuple[Size, Size] | None = None
    patch_size: Size | tuple[Size, Size] | None = None
    depth: Size | None = None
    depths: tuple[Size, ...] | None = None
    embed_dim: Size | tuple[Size, ...] | None = None
    dims: tuple[Size, ...] | None = None
    layers: tuple[Size, ...] | None = None
    num_heads: Size | tuple[Size, ...] | None = None
    window_size: Size | tuple[Size, Size] | None = None
    stem_width: Size | None = None
    base_width: Size | None = None
    cardinality: Size | None = None
    output_stride: Size | None = None
    reg_tokens: Size | None = None
    mlp_ratio: float | None = None
    init_values: float | None = None
    ls_init_value: float | None = None
    drop_rate: float | None = None
    drop_path_rate: float | None = None
    drop_block_rate: float | None = None
    pos_drop_rate: float | None = None
    patch_drop_rate: float | None = None
    proj_drop_rate: float | None = None
    attn_drop_rate: float | None = None
    qkv_bias: bool | None = None
    qk_norm: bool | None = None
    class_token: bool | None = None
    no_embed_class: bool | None = None
    pre_norm: bool | None = None
    final_norm: bool | None = None
    dynamic_img_size: bool | None = None
    dynamic_img_pad: bool | None = None
    strict_img_size: bool | None = None
    global_pool: str | None = None
    pos_embed: str | None = None
    act_layer: str | None = None
    norm_layer: str | None = None


def create_timm(name: str, options: Mapping[str, Any], **arguments: Any) -> Any:
    """Build a timm model.

    Args:
        name: Its name.
        options: Arguments of :class:`TimmOptions`.
        **arguments: Other arguments, not of the user's choice.

    Raises:
        ValueError: If an option is not one of them, or they do not go together.
    """
    import timm

    validated(dict(options), TimmOptions, "the options of the timm model")
    try:
        return timm.create_model(name, **arguments, **options)
    except (*BUILDING_ERRORS, ValueError) as err:
        reason = " ".join(f"{type(err).__name__}: {err}".split())
        raise ValueError(
            f"Expected options that {name!r} can be built with, got {dict(options)}: {reason}"
        ) from err
