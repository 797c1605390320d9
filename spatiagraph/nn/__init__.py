"""Learned blocks. Tensors in, tensors out."""

from spatiagraph._lazy import attach

_NAMES = {
    "AttentionPool": "pool",
    "CellEncoder": "cell",
    "ConcatFusion": "fusion",
    "Configurable": "config",
    "CrossAttention": "cross_attention",
    "CrossModalFusion": "fusion",
    "EdgeEncoding": "encoding",
    "FusedTokens": "token_fusion",
    "GateFusion": "fusion",
    "GeneEncoder": "genes",
    "GeneTokenEncoder": "gene_tokens",
    "GeneTokens": "gene_tokens",
    "GenomicPosition": "genomic_position",
    "GradientReversal": "gradient_reversal",
    "GraphTransformer": "transformer",
    "GraphTransformerLayer": "transformer",
    "ImageEncoder": "image",
    "ImageTokens": "masked_image",
    "MaskedImageDecoder": "masked_image",
    "MaskedImageEncoder": "masked_image",
    "NichePool": "pool",
    "PyGPool": "pool",
    "TissuePool": "pool",
    "TokenFusion": "token_fusion",
    "TokenTransformer": "token_transformer",
    "TopDown": "top_down",
    "reverse_gradient": "gradient_reversal",
}
_MODULES = (
    "cell",
    "config",
    "cross_attention",
    "encoding",
    "fusion",
    "gene_tokens",
    "genes",
    "genomic_position",
    "gradient_reversal",
    "image",
    "masked_image",
    "patches",
    "pool",
    "token_fusion",
    "token_transformer",
    "top_down",
    "transformer",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
