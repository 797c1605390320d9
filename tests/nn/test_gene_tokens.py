import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from spatiagraph._config import from_config, to_config
from spatiagraph.nn.gene_sampling import sample_genes
from spatiagraph.nn.gene_tokens import GeneTokenEncoder, GeneTokens

NUM_GENES, LENGTH, CHANNELS = 12, 7, 16


def encoder(**options) -> GeneTokenEncoder:
    torch.manual_seed(0)
    sizes = {"num_labels": 4, "num_layers": 2, "dropout": 0.0}
    made = GeneTokenEncoder(NUM_GENES, CHANNELS, **{**sizes, **options})
    made.position.locate(torch.arange(NUM_GENES) // 2)
    return made.eval()


def cells(num_cells: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randperm(NUM_GENES, generator=generator) for _ in range(num_cells)])
    counts = torch.randint(0, 9, (num_cells, LENGTH), generator=generator).float()
    return {"gene_ids": ids[:, :LENGTH], "counts": counts, "depth": counts.sum(1) + 20}


def hide(*places: int) -> Tensor:
    """The same places in each of three cells."""
    return torch.isin(torch.arange(LENGTH), torch.tensor(places)).expand(3, -1)


@pytest.mark.parametrize("num_labels", [0, 4])
def test_stream_holds_cell_tokens_then_genes(num_labels):
    """SPATIA fact 9."""
    out = encoder(num_labels=num_labels)(**cells())
    assert isinstance(out, GeneTokens)
    assert out.num_cell_tokens == 2 + num_labels
    assert out.tokens.shape == (3, 2 + num_labels + LENGTH, CHANNELS)
    assert out.label_tokens.shape == (3, num_labels, CHANNELS)
    assert_close(torch.cat([out.cell_tokens, out.gene_tokens], 1), out.tokens)
    assert out.pad is None


def test_the_default_size_is_the_published_one():
    with torch.device("meta"):
        base = GeneTokenEncoder(5000, num_labels=4)
        out = base(torch.zeros(2, 1000, dtype=torch.long), torch.rand(2, 1000), torch.rand(2))
    assert out.tokens.shape == (2, 1006, 256)
    assert len(base.transformer.layers) == 8


def test_two_passes_give_the_same_bits():
    """SPATIA fact 10."""
    model = encoder(dropout=0.5)
    assert_close(model(**cells()).tokens, model(**cells()).tokens, rtol=0, atol=0)


@pytest.mark.parametrize("normalization", ["sum", "log2p1", "none"])
def test_order_of_genes_means_nothing(normalization):
    """SPATIA fact 11."""
    model, batch = encoder(normalization=normalization), cells()
    order = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(2))
    shuffled = {**batch, "gene_ids": batch["gene_ids"][:, order]}
    shuffled["counts"] = batch["counts"][:, order]
    before, after = model(**batch), model(**shuffled)
    assert_close(after.cell_tokens, before.cell_tokens, rtol=1e-5, atol=1e-5)
    assert_close(after.gene_tokens, before.gene_tokens[:, order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalization", ["sum", "log2p1"])
def test_padding_changes_nothing_whatever_it_holds(normalization):
    """SPATIA fact 13."""
    model, batch = encoder(normalization=normalization), cells()
    padded = {
        "gene_ids": torch.cat([batch["gene_ids"], torch.full((3, 2), 5)], 1),
        "counts": torch.cat([batch["counts"], torch.full((3, 2), 99.0)], 1),
        "depth": batch["depth"],
        "pad": (torch.arange(LENGTH + 2) >= LENGTH).expand(3, -1),
    }
    before, after = model(**batch), model(**padded)
    assert_close(after.tokens[:, :-2], before.tokens, rtol=1e-5, atol=1e-5)
    assert after.pad.shape == after.tokens.shape[:2]
    assert not after.pad[:, : after.num_cell_tokens].any()


def test_each_cell_stands_for_itself():
    model, batch = encoder(), cells()
    one = model(**{name: value[1:2] for name, value in batch.items()})
    assert_close(one.tokens, model(**batch).tokens[1:2], rtol=1e-5, atol=1e-5)
    none = model(**{name: value[:0] for name, value in batch.items()})
    assert none.tokens.shape == (0, 6 + LENGTH, CHANNELS)


def test_hidden_counts_leave_no_trace():
    model, batch = encoder(), cells()
    hidden = hide(0, 3)
    other = {**batch, "counts": torch.where(hidden, batch["counts"] + 5, batch["counts"])}
    first, second = model(**batch, value_mask=hidden), model(**other, value_mask=hidden)
    assert_close(first.tokens, second.tokens, rtol=0, atol=0)
    assert not torch.allclose(first.tokens, model(**batch).tokens)


def test_hiding_every_count_is_giving_none():
    model, batch = encoder(), cells()
    everything = torch.ones(3, LENGTH, dtype=torch.bool)
    without = model(batch["gene_ids"], depth=batch["depth"])
    assert_close(model(**batch, value_mask=everything).tokens, without.tokens)


def test_a_zero_count_is_not_a_hidden_one():
    model, batch = encoder(normalization="log2p1"), cells()
    zero = {**batch, "counts": batch["counts"].masked_fill(hide(2), 0.0)}
    hidden = model(**zero, value_mask=hide(2))
    assert not torch.allclose(model(**zero).tokens, hidden.tokens, atol=1e-3)


def test_sum_normalisation_divides_by_the_visible_total_of_at_least_one():
    model = encoder()
    counts = torch.tensor([[3.0, 1.0, 4.0], [0.0, 0.0, 0.5]])
    hidden = torch.tensor([[False, False, True], [False, False, False]])
    assert_close(model.normalize(counts, hidden)[0], torch.tensor([0.75, 0.25, 0.0]))
    assert_close(model.normalize(counts, hidden)[1], torch.tensor([0.0, 0.0, 0.5]))
    logged = encoder(normalization="log2p1").normalize(counts)
    assert_close(logged[0], torch.tensor([4.0, 2.0, 5.0]).log2())


def test_depth_and_place_on_the_genome_are_read():
    model, batch = encoder(), cells()
    before = model(**batch).cell_tokens
    assert not torch.allclose(model(**{**batch, "depth": batch["depth"] * 4}).cell_tokens, before)
    model.position.locate(torch.arange(NUM_GENES) * 3)
    assert not torch.allclose(model(**batch).cell_tokens, before)


def test_cell_tokens_of_an_earlier_pass_replace_the_learned_ones():
    model, batch = encoder(), cells()
    given = torch.randn(3, 6, CHANNELS)
    first = model(batch["gene_ids"], cell_tokens=given)
    again = model(batch["gene_ids"], cell_tokens=given.flip(0))
    assert_close(again.tokens[1], first.tokens[1])
    assert not torch.allclose(again.tokens[0], first.tokens[0])


def test_encoder_reads_sampled_counts_of_a_slide():
    counts = torch.tensor([[0.0, 2.0, 0.0, 1.0, 0.0], [3.0, 1.0, 0.0, 0.0, 0.0]])
    measured = torch.tensor([True, True, False, True, True])
    model = GeneTokenEncoder(5, CHANNELS, num_layers=1).eval()
    tokens = sample_genes(counts, measured, length=4, fill_zeros=False)
    out = model(tokens.ids, tokens.values, counts.sum(1), tokens.pad)
    assert out.gene_tokens.shape == (2, 2, CHANNELS)
    assert out.tokens.isfinite().all()


def test_gradients_reach_every_parameter():
    model = encoder().train()
    model(**cells()).tokens.square().sum().backward()
    lacking = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert lacking == []


def test_a_given_gene_table_is_pooled_and_may_stay_fixed():
    model = encoder(freeze_genes=True)
    table = torch.arange(NUM_GENES * 2.0 * CHANNELS).view(NUM_GENES, -1)
    model.set_gene_table(table)
    assert_close(model.identity.weight.data, table.view(NUM_GENES, CHANNELS, 2).mean(-1))
    model(**cells()).tokens.sum().backward()
    assert model.identity.weight.grad is None


def test_an_encoder_is_rebuilt_from_its_configuration_and_weights():
    model = encoder(normalization="log2p1", freeze_genes=True)
    again = from_config(to_config(model)).eval()
    again.load_state_dict(model.state_dict())
    assert_close(again(**cells()).tokens, model(**cells()).tokens, rtol=0, atol=0)
    assert str(again) == str(model)


def test_encoder_runs_in_double_precision():
    batch = {k: v.double() if v.is_floating_point() else v for k, v in cells().items()}
    out = encoder().double()(**batch).tokens
    assert out.dtype == torch.float64
    assert_close(out.float(), encoder()(**cells()).tokens, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": torch.ones(3, 2)}, r"'counts' of shape \[3, 7\] as 'gene_ids', got \[3, 2\]"),
        ({"pad": torch.ones(3, 2) > 0}, "Expected 'pad' of shape"),
        ({"depth": None}, "'depth' of each of 3 cells over all genes, got None"),
        ({"depth": torch.ones(2)}, r"got \[2\]"),
        ({"cell_tokens": torch.ones(3, 2, 16)}, r"\[3, 6, 16\], got \[3, 2, 16\]"),
    ],
)
def test_encoder_says_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        encoder()(**{**cells(), **change})


def test_encoder_rejects_unknown_options_and_tables_that_do_not_fit():
    with pytest.raises(ValueError, match="got 'log1p'"):
        GeneTokenEncoder(5, 16, normalization="log1p")
    with pytest.raises(ValueError, match="even number of 'channels', got 15"):
        GeneTokenEncoder(5, 15)
    with pytest.raises(ValueError, match=r"\[12, 16 or more\], got \[12, 8\]"):
        encoder().set_gene_table(torch.ones(12, 8))
    with pytest.raises(ValueError, match=r"for 1 genes \(first: rows \[3\]\)"):
        encoder().set_gene_table(torch.ones(12, 16).index_fill(0, torch.tensor(3), torch.nan))
