"""Sizes of SPATIA."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "channels": 32,
        "gene_channels": 32,
        "gene_layers": 2,
        "heads": 2,
        "num_tokens": 128,
        "normalization": "log2p1",
        "image": "vit_tiny_patch16_224",
        "size_px": 32,
        "image_options": {"patch_size": 8, "depth": 2, "embed_dim": 64, "num_heads": 4},
        "decoder_channels": 32,
        "decoder_layers": 1,
        "niche_layers": 1,
        "tissue_layers": 1,
        "context_heads": 4,
        "dropout": 0.0,
    },
    "small": {
        "channels": 256,
        "gene_channels": 128,
        "gene_layers": 4,
        "num_tokens": 512,
        "normalization": "log2p1",
        "image": "vit_small_patch16_224",
        "size_px": 64,
        "image_options": {"patch_size": 8},
        "decoder_channels": 192,
        "decoder_layers": 2,
        "niche_layers": 2,
        "tissue_layers": 2,
    },
    "base": {},
}
"""Arguments in which the presets differ from the published model, ``"base"``."""
