"""Weights of other libraries in ours, on networks of those layouts that are written out here."""

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import GeneVocabulary
from spatiagraph.data.convert.counts import ragged_tensor
from spatiagraph.models import SlideModel
from spatiagraph.models.stofm import as_published, from_published
from spatiagraph.nn import Cells, RankEncoder
from spatiagraph.nn.rank_encoder import padded_tokens

VOCABULARY = GeneVocabulary([f"G{i}" for i in range(20)], medians=[1.5] * 20)
C, D, H, K = 16, 24, 3, 5


def bert(num_layers=2, seed=0):
    """State dict of a BERT by the names of Transformers."""
    torch.manual_seed(seed)
    found = {
        "bert.embeddings.word_embeddings.weight": torch.randn(23, C),
        "bert.embeddings.position_embeddings.weight": torch.randn(2048, C),
        "bert.embeddings.token_type_embeddings.weight": torch.randn(2, C),
        "bert.embeddings.LayerNorm.weight": torch.rand(C),
        "bert.embeddings.LayerNorm.bias": torch.randn(C),
        "bert.pooler.dense.weight": torch.randn(C, C),
        "bert.pooler.dense.bias": torch.randn(C),
        "cls.predictions.bias": torch.randn(23),
    }
    sizes = {
        "attention.self.query": (C, C), "attention.self.key": (C, C),
        "attention.self.value": (C, C), "attention.output.dense": (C, C),
        "intermediate.dense": (32, C), "output.dense": (C, 32),
        "attention.output.LayerNorm": (C,), "output.LayerNorm": (C,),
    }  # fmt: skip
    for i in range(num_layers):
        for name, size in sizes.items():
            found[f"bert.encoder.layer.{i}.{name}.weight"] = torch.randn(size) / 3
            found[f"bert.encoder.layer.{i}.{name}.bias"] = torch.randn(size[0])
    return found


def pairs(num_layers=2, seed=1, fused=True):
    """State dict of a pair transformer by the names of Uni-Mol."""
    torch.manual_seed(seed)
    found = {
        "embed.weight": torch.randn(D, C), "embed.bias": torch.randn(D),
        "type_embedding.weight": torch.randn(4, D),
        "gbf.means.weight": torch.rand(1, K), "gbf.stds.weight": torch.rand(1, K),
        "gbf.mul.weight": torch.rand(1, 1), "gbf.bias.weight": torch.rand(1, 1),
        "gbf_proj.linear1.weight": torch.randn(K, K), "gbf_proj.linear1.bias": torch.randn(K),
        "gbf_proj.linear2.weight": torch.randn(H, K), "gbf_proj.linear2.bias": torch.randn(H),
    }  # fmt: skip
    sizes = {
        "self_attn.in_proj": (3 * D, D), "self_attn.out_proj": (D, D), "fc1": (40, D),
        "fc2": (D, 40), "self_attn_layer_norm": (D,), "final_layer_norm": (D,),
    }  # fmt: skip
    for i in range(num_layers):
        for name, size in sizes.items():
            weight, bias = torch.randn(size) / 3, torch.randn(size[0])
            if name == "self_attn.in_proj" and not fused:
                for kind, w, b in zip("qkv", weight.chunk(3), bias.chunk(3), strict=True):
                    found[f"encoder.layers.{i}.self_attn.{kind}_proj.weight"] = w
                    found[f"encoder.layers.{i}.self_attn.{kind}_proj.bias"] = b
                continue
            found[f"encoder.layers.{i}.{name}.weight"] = weight
            found[f"encoder.layers.{i}.{name}.bias"] = bias
    return found


@pytest.fixture
def files(tmp_path):
    def written(cells, context):
        torch.save(cells, tmp_path / "cells.pt")
        torch.save({"state_dict": context}, tmp_path / "context.pt")
        return tmp_path / "cells.pt", tmp_path / "context.pt"

    return written


def test_sizes_and_rules_are_those_of_the_files(files, tmp_path):
    model = from_published(*files(bert(), pairs()), VOCABULARY)
    assert (model.slices.norm, model.slices.partition) == ("bbox", "grid")
    assert model.virtual.features == "sum2d"
    assert model.encoder.bias.far_distance == 100.0
    assert (model.encoder.channels, model.encoder.heads, len(model.encoder.layers)) == (D, H, 2)
    again = SlideModel.from_pretrained(model.save_pretrained(tmp_path / "model"))
    for name, value in model.state_dict().items():
        assert_close(again.state_dict()[name], value, atol=0, rtol=0)
    separate = from_published(*files(bert(), pairs(fused=False)), VOCABULARY)
    for name, value in model.encoder.state_dict().items():
        assert_close(separate.encoder.state_dict()[name], value, atol=0, rtol=0)


def test_cells_are_encoded_as_the_written_out_bert_does(files):
    """The first layer and the pooling, by BERT's equations."""
    weights = bert(num_layers=1)
    encoder = from_published(*files(weights, pairs()), VOCABULARY).cell_encoder
    assert isinstance(encoder, RankEncoder)
    ids = torch.tensor([22, 5, 9, 3])

    def linear(name, h):
        start = f"bert.encoder.layer.0.{name}"
        return h @ weights[f"{start}.weight"].T + weights[f"{start}.bias"]

    def norm(start, h):
        h = (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 1e-12).sqrt()
        return h * weights[f"{start}.weight"] + weights[f"{start}.bias"]

    names = ("word", "position", "token_type")
    word, position, kind = (weights[f"bert.embeddings.{n}_embeddings.weight"] for n in names)
    h = norm("bert.embeddings.LayerNorm", word[ids] + position[:4] + kind[0])
    q, k, v = (
        linear(f"attention.self.{n}", h).view(4, 4, C // 4).transpose(0, 1)
        for n in ("query", "key", "value")
    )
    message = ((q @ k.transpose(1, 2) / (C // 4) ** 0.5).softmax(2) @ v).transpose(0, 1)
    start = "bert.encoder.layer.0"
    inside = h + linear("attention.output.dense", message.reshape(4, C))
    h = norm(f"{start}.attention.output.LayerNorm", inside)
    inside = h + linear("output.dense", linear("intermediate.dense", h).relu())
    h = norm(f"{start}.output.LayerNorm", inside)
    pooled = h[0] @ weights["bert.pooler.dense.weight"].T + weights["bert.pooler.dense.bias"]
    tokens = ragged_tensor(ids.numpy(), torch.tensor([0, 4]).numpy())
    assert_close(
        encoder.states(*padded_tokens(tokens, torch.tensor([0])))[0], h, atol=1e-4, rtol=1e-3
    )
    assert_close(encoder(Cells(gene_ids=tokens))[0], pooled / pooled.norm(), atol=1e-4, rtol=1e-3)


def test_what_is_no_such_file_is_refused_by_name(files, tmp_path):
    cells, context = files(bert() | {"bert.adapter.weight": torch.ones(1)}, pairs())
    with pytest.raises(ValueError, match=r"1 others .*bert.adapter.weight"):
        from_published(cells, context, VOCABULARY)
    cells, context = files(bert(), pairs())
    with pytest.raises(ValueError, match=r"Expected known names.*context_names"):
        from_published(context, cells, VOCABULARY)
    lacking = pairs()
    del lacking["gbf.means.weight"]
    with pytest.raises(ValueError, match=r"found none of \['bias.mean'\]"):
        from_published(*files(bert(), lacking), VOCABULARY)
    lacking = bert()
    del lacking["bert.encoder.layer.1.attention.self.key.bias"]
    with pytest.raises(ValueError, match="of another model"):
        from_published(*files(lacking, pairs()), VOCABULARY)
    with pytest.raises(ValueError, match="of another model.*token.weight"):
        from_published(*files(bert(), pairs()), GeneVocabulary(["A", "B"]))
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(ValueError, match="unreadable"):
        from_published(tmp_path / "text.pt", context, VOCABULARY)


class Stranger:
    """An object whose pickle runs code."""

    def __reduce__(self):
        return (print, ("this ran",))


def test_nothing_in_a_file_runs(files, capsys):
    cells, context = files({"bert.embeddings.word_embeddings.weight": Stranger()}, pairs())
    with pytest.raises(ValueError, match="unreadable"):
        from_published(cells, context, VOCABULARY)
    assert "this ran" not in capsys.readouterr().out


def test_the_published_size_is_the_default():
    with torch.device("meta"):
        model = as_published(VOCABULARY)
    assert sum(p.numel() for p in model.encoder.parameters()) == 3_243_658


def test_two_tensors_of_one_name_and_gaps_between_layers_are_refused(files, tmp_path):
    twice = bert() | {"embeddings.word_embeddings.weight": torch.zeros(23, C)}
    with pytest.raises(ValueError, match=r"one tensor for 'token\.weight'"):
        from_published(*files(twice, pairs()), VOCABULARY)
    far = pairs() | {"encoder.layers.99999999.fc1.bias": torch.zeros(40)}
    with pytest.raises(ValueError, match="number 99999999 of 3"):
        from_published(*files(bert(), far), VOCABULARY)
    flat = pairs() | {"embed.weight": torch.tensor(1.0)}
    with pytest.raises(ValueError, match=r"'embed\.weight' with other axes"):
        from_published(*files(bert(), flat), VOCABULARY)
    cells, context = files({1: torch.ones(2)}, pairs())
    with pytest.raises(ValueError, match="tensors by name"):
        from_published(cells, context, VOCABULARY)
    with pytest.raises(ValueError, match="found a folder"):
        from_published(tmp_path, context, VOCABULARY)
