"""Train SpatialFormer on one half of a tissue, and ask it about the other half.

Cells are ranked genes, and two of them one sequence. The model names hidden genes, learns which
genes of a cell lie together (where the slide has molecules), and says whether two cells are
neighbours. Both answers are scored on cells it has not seen, beside what needs no model::

    python examples/train_spatialformer.py
    python examples/train_spatialformer.py --data xenium_folder --steps 20000

Two minutes on a busy core. A hundred steps are enough to see that it learns, not to learn: expect a
cross-entropy of hidden genes of 3.90, where how usual genes are gives 4.07, and neighbours told
about as well (area under the curve 0.59) as by how often types of cells are neighbours in the other
half (0.58); the model starts there, from how alike cells are.
"""

import argparse

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import spatiagraph as sg
from spatiagraph.data.loader import PairSource
from spatiagraph.data.loader.neighbor_pairs import NEIGHBOR
from spatiagraph.graph import radius_graph
from spatiagraph.inference import score_neighbors
from spatiagraph.models import SpatialFormer
from spatiagraph.tasks import SpatialFormerPretraining
from spatiagraph.tasks.streams import Streams


def cosine(slide: sg.Slide, pairs: np.ndarray) -> np.ndarray:
    """Cosine of the expression of both cells, per 10,000 and as logarithms."""
    x = np.log1p(1e4 * slide.counts.toarray() / slide.depth[:, None])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return (x[pairs[:, 0]] * x[pairs[:, 1]]).sum(1)


def adjacency(train: sg.Slide, slide: sg.Slide, pairs: np.ndarray, key: str) -> np.ndarray:
    """How much more often than by chance the types of both cells are neighbours in the training."""
    names = sorted({*train.adata.obs[key], *slide.adata.obs[key]})
    own, other = (
        np.array([names.index(name) for name in s.adata.obs[key]]) for s in (train, slide)
    )
    source, target = radius_graph(train.pos, 30.0).numpy()
    count = np.ones((len(names), len(names)))
    np.add.at(count, (own[source], own[target]), 1)
    share = np.bincount(own, minlength=len(names)) + 1.0
    return (count / np.outer(share, share))[other[pairs[:, 0]], other[pairs[:, 1]]]


@torch.no_grad()
def hidden_genes(model: SpatialFormer, train: sg.Slide, test: sg.Slide) -> tuple[float, float]:
    """Cross-entropy of hidden genes of unseen cells, by the model and by how usual genes are."""
    first = model.vocabulary.ranges["gene"].start
    usual = torch.ones(model.vocabulary.num_tokens)
    columns, _ = model.panel.counts(train)
    usual[first : first + len(model.panel)] += torch.from_numpy(columns.getnnz(axis=0)).float()
    usual = (usual / usual.sum()).log()
    task = SpatialFormerPretraining(model.eval(), hide_metadata=False).eval()
    ours, plain = [], []
    for number, batch in enumerate(model.batches([model.prepare(test, learn=True)])):
        generator = torch.Generator().manual_seed(number)
        view = task.view(batch, Streams(generator, torch.device("cpu")))
        true = view.sequences.tokens[view.chosen]
        logits = model.token_head(view.hidden[view.chosen]).log_softmax(1)
        ours.append(-logits[torch.arange(len(true)), true])
        plain.append(-usual[true])
    return float(torch.cat(ours).mean()), float(torch.cat(plain).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a slide; made tissue when not given")
    parser.add_argument("--types", default="cell_type", help="column of obs for the baseline")
    parser.add_argument("--cells", type=int, default=800, help="cells to make")
    parser.add_argument("--steps", type=int, default=100, help="steps of the optimiser")
    parser.add_argument("--preset", default="tiny", choices=("tiny", "base"))
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--out", help="folder of the run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    made = sg.make_tissue(args.cells, num_genes=60, image=None, seed=args.seed)
    slide = sg.read(args.data) if args.data else made
    left = slide.pos[:, 0] < np.median(slide.pos[:, 0])
    train, test = slide[left], slide[~left]
    print(f"{train} to train on, {test} to be asked about")

    model = SpatialFormer.from_options([train], preset=args.preset, seed=args.seed)
    run = sg.Run(max_steps=args.steps, lr=args.lr, seed=args.seed, out=args.out, accelerator="cpu")
    history = sg.fit(model, train, run=run.replace(progress=False)).history
    terms = [c for c in ("tokens", "gene_pairs", "cell_pairs") if c in history]
    print(history[["steps", *terms]].iloc[[0, -1]].round(3).to_string(index=False))

    edges = torch.stack(list(radius_graph(test.pos, 30.0)))
    for negatives in ("uniform", "ring"):
        source = PairSource(edges, torch.from_numpy(test.pos), negatives, seed=args.seed)
        rng = np.random.default_rng(args.seed)
        drawn = source.draw(rng.permutation(len(source))[:1500])
        pairs, label = np.stack([drawn.first, drawn.second], 1), drawn.kind == NEIGHBOR
        scores = {
            "model": score_neighbors(model, test, pairs, device="cpu"),
            "cosine": cosine(test, pairs),
        }
        if args.types in test.adata.obs:
            scores["adjacent types"] = adjacency(train, test, pairs, args.types)
        found = {name: round(float(roc_auc_score(label, s)), 3) for name, s in scores.items()}
        print(f"neighbours against {negatives} others: {found}")
    ours, plain = hidden_genes(model, train, test)
    evenly = np.log(len(model.panel))
    print(f"hidden genes {ours:.3f} (how usual they are {plain:.3f}, guessing {evenly:.3f})")


if __name__ == "__main__":
    main()
