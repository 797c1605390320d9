"""SToFM as it was published: its rules, and weights by the names of other libraries."""

import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from spatiagraph._files import check_file
from spatiagraph._reasons import reason
from spatiagraph.data.recipe import KNN, Ranks, Recipe
from spatiagraph.data.vocabulary import GeneVocabulary
from spatiagraph.models.stofm.build import context_encoder, rank_encoder
from spatiagraph.models.stofm.model import SToFM
from spatiagraph.models.stofm.size import BASE, SToFMSize
from spatiagraph.models.stofm.slices import SubSlices, VirtualCells
from spatiagraph.nn.weights import check_weights

SLICES = SubSlices(partition="grid", norm="bbox")
"""Partition of slides in the published code; both rules depend on how the slide lies."""
VIRTUAL = VirtualCells(features="sum2d")
"""Virtual cells of the published code."""
FAR = 100.0
"""Distance that stands for "not known" in the published code."""

_FIRST_CELL, _FIRST_CONTEXT = "transformer.layers.0.mlp.0.weight", "layers.0.mlp.0.weight"
_BIAS = tuple(
    f"bias.{n}" for n in ("mean", "width", "scale", "shift", "mlp.0.weight", "mlp.2.weight")
)
# torch names no class for bytes that are no weights: its unpickler fails where they lead it
_UNREADABLE = (
    zipfile.BadZipFile, pickle.UnpicklingError, struct.error, OSError, EOFError, RuntimeError,
    LookupError, ValueError, TypeError, AttributeError,
)  # fmt: skip
_QKV = ("query", "key", "value")
_BLOCK = r"(?:.*\.)?layers?\.(\d+)\."
CELL_NAMES = {
    r"(?:bert\.)?embeddings\.word_embeddings\.weight": "token.weight",
    r"(?:bert\.)?embeddings\.position_embeddings\.weight": "position.weight",
    r"(?:bert\.)?embeddings\.token_type_embeddings\.weight": "kind.weight",
    r"(?:bert\.)?embeddings\.LayerNorm\.(weight|bias)": r"norm.\1",
    rf"{_BLOCK}attention\.self\.(query|key|value)\.(weight|bias)": r"transformer.layers.\1.\2.\3",
    rf"{_BLOCK}attention\.output\.dense\.(weight|bias)": r"transformer.layers.\1.out.\2",
    rf"{_BLOCK}attention\.output\.LayerNorm\.(weight|bias)": (
        r"transformer.layers.\1.norm_attention.\2"
    ),
    rf"{_BLOCK}intermediate\.dense\.(weight|bias)": r"transformer.layers.\1.mlp.0.\2",
    rf"{_BLOCK}output\.dense\.(weight|bias)": r"transformer.layers.\1.mlp.3.\2",
    rf"{_BLOCK}output\.LayerNorm\.(weight|bias)": r"transformer.layers.\1.norm_mlp.\2",
    r"(?:.*\.)?pooler\.dense\.(weight|bias)": r"pool.\1",
    r"cls\.predictions\..*": "",
    r"(?:bert\.)?embeddings\.position_ids": "",
}
"""Weights of a BERT encoder by the names of Transformers → ours; "" for what is left out."""
CONTEXT_NAMES = {
    r"(?:.*\.)?(?:input_proj|embed)\.(weight|bias)": r"embed.\1",
    r"(?:.*\.)?(?:embed_type|type_embedding)\.weight": "kind.weight",
    rf"{_BLOCK}self_attn\.in_proj\.(weight|bias)": r"layers.\1.qkv.\2",
    rf"{_BLOCK}self_attn\.([qkv])_proj\.(weight|bias)": r"layers.\1.\2.\3",
    rf"{_BLOCK}self_attn\.out_proj\.(weight|bias)": r"layers.\1.out.\2",
    rf"{_BLOCK}self_attn_layer_norm\.(weight|bias)": r"layers.\1.norm_attention.\2",
    rf"{_BLOCK}fc1\.(weight|bias)": r"layers.\1.mlp.0.\2",
    rf"{_BLOCK}fc2\.(weight|bias)": r"layers.\1.mlp.3.\2",
    rf"{_BLOCK}final_layer_norm\.(weight|bias)": r"layers.\1.norm_mlp.\2",
    r"(?:.*\.)?gbf\.means\.weight": "bias.mean",
    r"(?:.*\.)?gbf\.stds\.weight": "bias.width",
    r"(?:.*\.)?gbf\.mul\.weight": "bias.scale",
    r"(?:.*\.)?gbf\.bias\.weight": "bias.shift",
    r"(?:.*\.)?gbf_proj\.linear1\.(weight|bias)": r"bias.mlp.0.\1",
    r"(?:.*\.)?gbf_proj\.linear2\.(weight|bias)": r"bias.mlp.2.\1",
}
"""Weights of a pair transformer by the names of Uni-Mol → ours."""


def as_published(vocabulary: GeneVocabulary, size: SToFMSize = BASE) -> SToFM:
    """SToFM with the rules of the published code, which depend on how a slide lies.

    As published it is trained by ``SToFMPretraining(model, corruption=PUBLISHED_CORRUPTION)`` of
    :mod:`spatiagraph.tasks`.

    Args:
        vocabulary: Genes with ids and medians.
        size: Widths and depths.
    """
    encoder = context_encoder(size, far=FAR)
    recipe = Recipe(vocabulary, graph=KNN(8), levels=(), tokens=Ranks(start="<cls>"))
    cells = rank_encoder(size, vocabulary.num_tokens)
    return SToFM(recipe, cells, encoder, slices=SLICES, virtual=VIRTUAL)


def from_published(
    cells: str | os.PathLike[str],
    context: str | os.PathLike[str],
    vocabulary: GeneVocabulary,
    *,
    cell_names: Mapping[str, str] = CELL_NAMES,
    context_names: Mapping[str, str] = CONTEXT_NAMES,
) -> SToFM:
    """SToFM with weights of files of PyTorch; ``save_pretrained`` writes them as safetensors.

    Sizes are those of the tensors. Files are read with ``weights_only=True``: nothing in them runs.

    Args:
        cells: File of the encoder of cells.
        context: File of the SE(2) transformer.
        vocabulary: Genes with ids and medians, in the order of the embedding table.
        cell_names: Regular expressions of the names in the first file → ours, "" for what is not
            needed.
        context_names: The same of the second file.

    Raises:
        ValueError: If a file is none of weights, has names that are not known, or lacks some.
    """
    own = _read(cells, cell_names, ("token.weight", "position.weight", _FIRST_CELL))
    around = _read(context, context_names, ("embed.weight", _FIRST_CONTEXT, *_BIAS))
    if "kind.weight" in own:  # one kind of token: its embedding is part of every position
        own["position.weight"] = own["position.weight"] + own.pop("kind.weight")[0]
    for name in [n for n in own if ".query." in n]:
        parts = [own.pop(name.replace(".query.", f".{kind}."), None) for kind in _QKV]
        own[name.replace(".query.", ".qkv.")] = torch.cat([p for p in parts if p is not None])
    for name in [n for n in around if ".qkv." in n]:
        for kind, part in zip("qkv", around.pop(name).chunk(3), strict=True):
            around[name.replace(".qkv.", f".{kind}.")] = part
    for name in _BIAS[:4]:
        around[name] = around[name].reshape(-1)
    model = as_published(vocabulary, _size(own, around))
    _fill(model.cell_encoder, own, cells)
    _fill(model.encoder, around, context)
    return model.eval()


def _size(own: Mapping[str, Tensor], around: Mapping[str, Tensor]) -> SToFMSize:
    """Sizes that tensors have; the heads of the encoder of cells are those of the paper."""
    return replace(
        BASE,
        cell_channels=own["token.weight"].size(1),
        cell_layers=1 + max(int(n.split(".")[2]) for n in own if n.startswith("transformer.")),
        cell_hidden=own["transformer.layers.0.mlp.0.weight"].size(0),
        channels=around["embed.weight"].size(0),
        num_layers=1 + max(int(n.split(".")[1]) for n in around if n.startswith("layers.")),
        heads=around["bias.mlp.2.weight"].size(0),
        num_kernels=around["bias.mlp.0.weight"].size(0),
        hidden_channels=around["layers.0.mlp.0.weight"].size(0),
    )


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    check_weights(tensors, network, Path(path))
    network.load_state_dict(dict(tensors))


def _read(
    path: str | os.PathLike[str], names: Mapping[str, str], needed: tuple[str, ...]
) -> dict[str, Tensor]:
    """Tensors of a file by our names."""
    check_file(Path(path), "weights of PyTorch")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as err:
        raise ValueError(
            f"Expected weights of PyTorch in {str(path)!r}; unreadable: {reason(err)}"
        ) from err
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()
    ):
        raise ValueError(f"Expected tensors by name in {str(path)!r}, got {type(found).__name__}")
    tensors: dict[str, Tensor] = {}
    unknown = []
    for name, value in found.items():
        match = next((m for p in names if (m := re.fullmatch(p, name))), None)
        if match is None:
            unknown.append(name)
        elif own := match.expand(names[match.re.pattern]):
            if own in tensors:
                raise ValueError(
                    f"Expected one tensor for {own!r} in {str(path)!r}, got {name!r} beside "
                    "another: leave out what is of another network"
                )
            tensors[own] = value.float()
    if unknown:
        raise ValueError(
            f"Expected known names of weights in {str(path)!r}, got {len(unknown)} others (first: "
            f"{unknown[:3]}): give them a name in cell_names or context_names, or leave them out "
            'with ""'
        )
    if missing := [name for name in needed if name not in tensors]:
        raise ValueError(
            f"Expected the weights of {needed} in {str(path)!r}, found none of {missing}: are "
            "these the files in their order, encoder of cells and SE(2) transformer?"
        )
    flat = [n for n in needed if n not in _BIAS[:4] and tensors[n].dim() != 2]
    layers = {int(m[1]) for n in tensors if (m := re.search(r"layers\.(\d+)\.", n))}
    if flat or layers != set(range(len(layers))):
        what = f"{flat[0]!r} with other axes" if flat else f"number {max(layers)} of {len(layers)}"
        raise ValueError(
            f"Expected matrices and layers from 0 on in {str(path)!r}, got {what}: is the file "
            "complete?"
        )
    return tensors
