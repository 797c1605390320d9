"""Figures of one accelerator: parity, reproducibility, speed and memory of kernels and models.

    python tests/gpu/measure.py all --out gpu.json
    python tests/gpu/measure.py attention --device cpu --toy
    python tests/gpu/measure.py table gpu.json

``--toy`` takes sizes at which a CPU runs all of it in seconds, which is how it is tested.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spatiagraph.graph import hilbert_order, knn_graph
from spatiagraph.kernels import (
    neighbor_attention,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)

HEADS, WIDTH = 4, 32
CHANNELS = HEADS * WIDTH
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LIMITS = {  # seconds of each part; together under 8 minutes
    "parity": 100, "same_bits": 40, "attention": 170, "transformer": 50, "spatia": 60, "unet": 50,
    "stofm": 40,
}  # fmt: skip


class Bench:
    """Device, sizes, clock and memory of a run."""

    def __init__(self, device: str, toy: bool):
        self.device, self.toy = torch.device(device), toy
        self.cuda = self.device.type == "cuda"

    def wait(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, step: Callable[[], object], repeats: int = 7) -> float:
        """Median time of a step, after two that do not count (one of a toy)."""
        warm, repeats = (1, 1) if self.toy else (2, repeats)
        times = []
        for _ in range(warm + repeats):
            self.wait()
            start = time.perf_counter()
            step()
            self.wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times[warm:])

    def measured(self, step: Callable[[], object], repeats: int = 7) -> dict[str, Any]:
        """Seconds of a step and the most memory it takes beyond what was there, in GB.

        What does not fit says so: the peers keep values for every edge.
        """
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        try:
            took = self.seconds(step, repeats)
        except torch.OutOfMemoryError:
            return {"out_of_memory": True}
        found: dict[str, Any] = {"seconds": took}
        if self.cuda:
            found["gb"] = (torch.cuda.max_memory_allocated(self.device) - before) / 1e9
        return found

    def cells(self, num: int, k: int) -> Tensor:
        """Edges of the ``k`` nearest of cells at random places, in Hilbert order, ``[2, E]``."""
        pos = 10 * num**0.5 * np.random.default_rng(0).random((num, 2))
        pos = pos[hilbert_order(pos).numpy()]
        return knn_graph(pos, k).as_tensor().clone().to(self.device)


def parity(bench: Bench) -> dict[str, Any]:
    """Largest error of each kernel over what is allowed, on the graphs of ``tests/kernels``."""
    cases = _module("tests/kernels/conftest.py")
    backends = dict.fromkeys(DTYPES, "triton" if bench.cuda else "torch")
    backends["float32"] = "triton" if bench.cuda else "numba"
    found: dict[str, Any] = {}
    for name, dtype in DTYPES.items():
        worst = 0.0
        for graph in cases.GRAPHS.values():
            torch.manual_seed(0)
            made = graph()
            for options in ({}, {"dropout": 0.3}, {"with_bias": False, "strided": True}):
                errors = cases.largest_differences(
                    backends[name], made, heads=HEADS, channels=WIDTH, dtype=dtype,
                    device=str(bench.device), **options,
                )  # fmt: skip
                worst = max([worst, *(each if each == each else np.inf for each in errors)])
        found[f"neighbor_attention {name}"] = worst
        found |= {f"{op} {name}": v for op, v in _segments(bench, dtype).items()}
    return {"error_over_allowed": found, "passed": all(v <= 1 for v in found.values())}


def _segments(bench: Bench, dtype: torch.dtype) -> dict[str, float]:
    """The same of the segment operations."""
    generator = torch.Generator().manual_seed(0)
    ptr = torch.cat([torch.zeros(1), torch.randint(0, 9, (500,), generator=generator).cumsum(0)])
    ptr = ptr.long()
    x = torch.randn(int(ptr[-1]), 8, generator=generator).to(dtype)
    allowed = {torch.float32: 1e-5}.get(dtype, 2e-2)
    found = {}
    for op in (segment_sum, segment_mean, segment_max, segment_softmax):
        results = []
        for kind, device in ((torch.float64, torch.device("cpu")), (dtype, bench.device)):
            inputs = x.to(device, kind).requires_grad_()
            out = op(inputs, ptr.to(device))
            (grad,) = torch.autograd.grad((out * out).sum(), inputs)
            results.append([v.detach().cpu().double() for v in (out, grad)])
        errors = [
            (got - expected).abs().max() / expected.abs().max().clamp_min(1)
            for expected, got in zip(*results, strict=True)
        ]
        found[op.__name__] = float(max(errors)) / allowed
    return found


def same_bits(bench: Bench) -> dict[str, Any]:
    """Whether two runs give the same bits: attention with dropout, and steps of training."""
    num = 400 if bench.toy else 50_000
    edge_index, found = bench.cells(num, 8), {}
    for name, dtype in DTYPES.items():
        runs = []
        for _ in range(2):
            torch.manual_seed(0)
            q, k, v = (
                torch.randn(num, HEADS, WIDTH, device=bench.device, dtype=dtype).requires_grad_()
                for _ in range(3)
            )
            out = neighbor_attention(q, k, v, edge_index, dropout=0.1, seed=3)
            runs.append([out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))])
        found[f"neighbor_attention {name}"] = all(map(torch.equal, *runs))
    runs = [_trained(bench, edge_index, num) for _ in range(2)]
    found["three steps of a GraphTransformer"] = all(map(torch.equal, *runs))
    return {"same": found, "passed": all(found.values())}


def _trained(bench: Bench, edge_index: Tensor, num: int) -> list[Tensor]:
    step, model = _transformer(bench, edge_index, num)
    for _ in range(3):
        step()
    return [p.detach() for p in model.parameters()]


def attention(bench: Bench) -> dict[str, Any]:
    """Forward and backward of attention over k neighbours, beside PyG and beside gather + SDPA."""
    sizes = ((500, (4,)),) if bench.toy else ((100_000, (8, 16, 32)), (1_000_000, (8, 16, 32)))
    rows = []
    copied = _copy_bandwidth(bench)
    for num, degrees in sizes:
        for k in degrees:
            edge_index = bench.cells(num, k)
            for name in ("float32", "bfloat16"):
                rows.append(_attention_row(bench, num, k, name, edge_index, copied))
                print(json.dumps({"rows": rows}), flush=True)  # should the next take too long
            del edge_index
    return {"copy_bytes_per_second": copied, "compiled": not bench.toy, "rows": rows}


def _gathered(q: Tensor, key: Tensor, v: Tensor, neighbors: Tensor) -> Tensor:
    """Attention to the same number of neighbours of each cell, ``[N, k]``, without a kernel."""
    near = (x[neighbors].transpose(1, 2) for x in (key, v))  # [N, H, k, D]
    return nn.functional.scaled_dot_product_attention(q.unsqueeze(2), *near).squeeze(2)


_compiled = torch.compile(_gathered, dynamic=True)  # once for all sizes


def _copy_bandwidth(bench: Bench) -> float:
    """Bytes per second that are read and written when a tensor is copied."""
    source = torch.empty(2**20 if bench.toy else 2**28, device=bench.device)
    target = torch.empty_like(source)
    took = bench.seconds(lambda: target.copy_(source))
    return 2 * source.numel() * source.element_size() / took


def _attention_row(
    bench: Bench, num: int, k: int, name: str, edge_index: Tensor, copied: float
) -> dict[str, Any]:
    from torch_geometric import EdgeIndex
    from torch_geometric.nn import TransformerConv

    dtype = DTYPES[name]
    torch.manual_seed(0)
    q, key, v = (
        torch.randn(num, HEADS, WIDTH, device=bench.device, dtype=dtype).requires_grad_()
        for _ in range(3)
    )
    grad = torch.randn(num, HEADS, WIDTH, device=bench.device, dtype=dtype)
    ordered = EdgeIndex(edge_index, sparse_size=(num, num), sort_order="col")
    conv = TransformerConv(CHANNELS, WIDTH, heads=HEADS).to(bench.device, dtype)
    neighbors = edge_index[0].view(num, k)

    def ours() -> Tensor:
        return neighbor_attention(q, key, v, ordered)

    def theirs() -> Tensor:
        out: Tensor = conv.propagate(edge_index, query=q, key=key, value=v, edge_attr=None)
        return out.view(num, HEADS, WIDTH)

    gather = _gathered if bench.toy else _compiled

    def both(run: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            for x in (q, key, v):
                x.grad = None
            run().backward(grad)

        return step

    expected = ours().detach()
    row: dict[str, Any] = {"cells": num, "k": k, "dtype": name}
    sides = {"ours": ours, "pyg": theirs, "sdpa": lambda: gather(q, key, v, neighbors)}
    for side, run in sides.items():
        try:
            row[side] = bench.measured(both(run))
        except RuntimeError as err:  # a peer that fails costs its own figure
            if side == "ours":
                raise
            row[side] = {"failed": str(err).splitlines()[0]}
        if "seconds" in row[side]:
            error = (run().detach() - expected).abs().max() / expected.abs().max()
            row[side]["difference"] = float(error)
    with torch.no_grad():
        forward = bench.seconds(ours)
    size = q.element_size()
    moved = 2 * num * CHANNELS * size + 2 * edge_index.size(1) * CHANNELS * size
    row["forward_seconds"] = forward
    row["forward_over_copy"] = moved / forward / copied
    return row


def transformer(bench: Bench) -> dict[str, Any]:
    """A training step of a GraphTransformer."""
    rows = []
    for num in (300,) if bench.toy else (100_000, 1_000_000):
        edge_index = bench.cells(num, 8)
        step, _ = _transformer(bench, edge_index, num)
        found = bench.measured(step, 5)
        rows.append({"cells": num, **found, **_rate(found, num)})
    return {"channels": CHANNELS, "layers": 4, "k": 8, "rows": rows}


def _transformer(
    bench: Bench, edge_index: Tensor, num: int
) -> tuple[Callable[[], None], nn.Module]:
    from torch_geometric import EdgeIndex

    from spatiagraph.nn import GraphTransformer

    torch.manual_seed(0)
    model = GraphTransformer(CHANNELS, num_layers=4, heads=HEADS).to(bench.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    h = torch.randn(num, CHANNELS, device=bench.device)
    ordered = EdgeIndex(edge_index, sparse_size=(num, num), sort_order="col")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(bench.device.type, torch.bfloat16):
            loss = (model(h, ordered) - h.roll(1, 0)).square().mean()
        loss.backward()
        optimizer.step()

    return step, model


def spatia(bench: Bench) -> dict[str, Any]:
    """A step of SPATIA's pre-training with images: the small model, or the tiny one as a toy."""
    from spatiagraph.data.panel import GenePanel
    from spatiagraph.models.spatia.presets import spatia_small, spatia_tiny
    from spatiagraph.tasks import SpatiaPretraining

    num, genes = (60, 20) if bench.toy else (2000, 300)
    panel = GenePanel([f"GENE{i}" for i in range(genes)])
    torch.manual_seed(0)
    model = (spatia_tiny if bench.toy else spatia_small)(panel).to(bench.device)
    data = model.recipe(_tissue(num, panel))
    batches = model.batches([data], 32 if bench.toy else 512, shuffle=True)
    task = SpatiaPretraining(model).to(bench.device)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4)
    batch = next(iter(batches)).to(bench.device)
    losses = []

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(bench.device.type, torch.bfloat16):
            out = task.loss(batch, torch.Generator(bench.device).manual_seed(0))
        out.loss.backward()
        optimizer.step()
        losses.append(float(out.loss.detach()))

    found = bench.measured(step, 5)
    cells = int(batch.core.sum())
    crop = model.recipe.crop()
    return {
        "size": "tiny" if bench.toy else "small", "cells": cells, "size_px": crop.size_px, **found,
        **_rate(found, cells), "first_loss": losses[0], "last_loss": losses[-1],
        "passed": bool(np.isfinite(losses).all()),
    }  # fmt: skip


def _tissue(num: int, panel: Any) -> Any:
    """What recipes read of a slide, without the AnnData that holds it."""
    from scipy.sparse import csr_matrix

    from spatiagraph.data.image import SlideImage

    rng = np.random.default_rng(0)
    side = 8.0 * num**0.5
    pos = rng.uniform(20, side + 20, (num, 2))
    counts = csr_matrix(rng.poisson(0.6, (num, len(panel))).astype(np.float32))
    pixels = rng.integers(0, 255, (int((side + 40) / 0.2),) * 2, dtype=np.uint8)
    return SimpleNamespace(
        pos=pos, counts=counts, depth=np.asarray(counts.sum(1)).ravel(), gene_ids=None,
        symbols=list(panel.symbols), num_cells=num, num_genes=len(panel), expression="counts",
        slide_id="made", image=SlideImage([pixels], mpp=0.2),
    )  # fmt: skip


def unet(bench: Bench) -> dict[str, Any]:
    """Images per second of a generator: Heun's rule as it is set, no condition."""
    if importlib.util.find_spec("diffusers") is None:
        return {"not_run": "diffusers is not installed"}
    from spatiagraph.data.recipe import Crop
    from spatiagraph.flow import Sampling
    from spatiagraph.models import ImageGenerator
    from spatiagraph.models.generator import TINY, GeneratorSize
    from spatiagraph.nn import Condition

    torch.manual_seed(0)
    size, pixels, num, steps = (TINY, 32, 2, 2) if bench.toy else (GeneratorSize(), 64, 64, 25)
    network = size.unet(1, conditioned=False)
    model = ImageGenerator(network, crop=Crop(13.6, pixels)).to(bench.device).eval()
    image = torch.rand(num, 1, pixels, pixels, device=bench.device)
    condition = Condition()

    def step() -> Tensor:
        with torch.autocast(bench.device.type, torch.bfloat16):
            return model.generate(image, condition, Sampling(steps))

    found = bench.measured(step, 2)
    made = step()
    return {
        "images": num, "size_px": pixels, "steps": steps, **found,
        "images_per_second": num / found["seconds"] if "seconds" in found else None,
        "passed": bool(torch.isfinite(made).all()),
    }  # fmt: skip


def stofm(bench: Bench) -> dict[str, Any]:
    """A layer of an SE(2) transformer forward and backward: all tensors, rows of them, fused."""
    from spatiagraph.kernels import use

    ours = {"rows": "torch", **({"fused": "triton"} if bench.cuda else {})}
    error: dict[str, Any] = {}
    model, nodes = pair_layer(40 if bench.toy else 300, bench.device, 4 if bench.toy else 128)
    double = pair_layer(len(nodes.x), bench.device, model.bias.num_kernels, torch.float64)
    expected = _states_and_gradients(plain_layer, *double)
    for name in ("float32", "bfloat16"):
        low = torch.autocast(bench.device.type, torch.bfloat16, enabled=name == "bfloat16")
        with low:
            plain = _error(_states_and_gradients(plain_layer, model, nodes), expected)
        for way, backend in ours.items():
            with low, use(backend):
                found = _error(_states_and_gradients(_our_layer, model, nodes), expected)
            error[f"{way} {name}"] = {"ours": found, "plain": plain}
    rows = []
    for num in (40,) if bench.toy else (1050, 4200):
        model, nodes = pair_layer(num, bench.device, 4 if bench.toy else 128)
        for name in ("float32", "bfloat16"):
            for way, backend in {**ours, "plain": "torch"}.items():
                layer = plain_layer if way == "plain" else _our_layer
                step = partial(_layer_step, bench, layer, model, nodes, name == "bfloat16")
                with use(backend):
                    found = bench.measured(step, 5 if num < 2000 else 2)
                rows.append({"nodes": num, "dtype": name, "way": way, **found})
                model.zero_grad()
                print(json.dumps({"rows": rows}), flush=True)  # should the next take too long
    passed = all(e["ours"] <= 2 * e["plain"] + 1e-5 for e in error.values())
    return {"error": error, "passed": passed, "rows": rows}


def _layer_step(bench: Bench, layer: Any, model: Any, nodes: Any, low: bool) -> None:
    model.zero_grad()
    with torch.autocast(bench.device.type, torch.bfloat16, enabled=low):
        h = layer(model, nodes)
    h.float().square().sum().backward()


def pair_layer(
    num: int, device: torch.device, num_kernels: int = 128, dtype: torch.dtype = torch.float32
) -> tuple[Any, Any]:
    """An SE(2) transformer of one layer, and a sub-slice with 30 virtual cells, or a fifth."""
    from spatiagraph.graph.pairs import known_pairs
    from spatiagraph.nn import Nodes, SE2Transformer

    torch.manual_seed(0)
    model = SE2Transformer(256, 256, 1, 8, num_kernels=num_kernels, dropout=0.0)
    for parameter in model.parameters():  # away from the start, at which distances hardly count
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    virtual = min(30, num // 5)
    kind = torch.tensor([1] + [2] * virtual + [0] * (num - 1 - virtual))
    pos = 70 * torch.rand(num, 2)
    nn.init.constant_(model.bias.scale, 0.1)
    pairs = known_pairs(pos, kind, min(49, num // 4))
    nodes = Nodes(torch.randn(num, 256), pos, kind, torch.zeros(num).long(), pairs)
    nodes = Nodes(*(x.to(device, dtype) if x.is_floating_point() else x.to(device) for x in nodes))
    return model.to(device, dtype), nodes


def _our_layer(model: Any, nodes: Any) -> Tensor:
    h: Tensor = model(nodes).h
    return h


def plain_layer(model: Any, nodes: Any) -> Tensor:
    """The same with every tensor of the equations, ``[L, L, K]`` included."""
    num = len(nodes.x)
    away = nodes.pos.new_full((num, num), 1e4)
    i, j = nodes.pair_index
    away[i, j] = away[j, i] = (nodes.pos[i] - nodes.pos[j]).norm(dim=1).clamp(min=1e-4)
    away[0] = away[:, 0] = 0
    away.fill_diagonal_(0)
    start = model.bias.mlp(model.bias.kernels(away.view(-1))).view(num, num, model.heads)
    start = (start * (away > 0).unsqueeze(2)).permute(2, 0, 1)
    h = model.embed(nodes.x) + model.kind(nodes.kind)
    layer = model.layers[0]
    q, k, v = layer.project(h.unsqueeze(0))
    s = q @ k.transpose(2, 3) / (model.channels // model.heads) ** 0.5 + start
    out: Tensor = layer(h.unsqueeze(0), s.softmax(3).to(v.dtype) @ v)[0]
    return out


def _states_and_gradients(layer: Callable[..., Tensor], model: Any, nodes: Any) -> list[Tensor]:
    h = layer(model, nodes)
    weight = torch.linspace(-1, 1, h.numel(), device=h.device, dtype=h.dtype).view_as(h)
    return [h, *torch.autograd.grad((h * weight).sum(), list(model.parameters()))]


def _error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest error of a tensor over its largest number; of tensors near 0, over that of others."""
    least = 1e-2 * max(float(e.detach().abs().max()) for e in expected)
    return max(
        float((f.detach().double() - e.detach()).abs().max())
        / max(float(e.detach().abs().max()), least)
        for f, e in zip(found, expected, strict=True)
    )


def _rate(found: dict[str, Any], num: int) -> dict[str, float]:
    return {"cells_per_second": num / found["seconds"]} if "seconds" in found else {}


def _module(path: str) -> ModuleType:
    """A file of the tests, which are no package."""
    place = Path(__file__).parents[2] / path
    spec = importlib.util.spec_from_file_location(place.stem, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    part.__name__: part for part in (parity, same_bits, attention, transformer, spatia, unet, stofm)
}


def machine(device: str) -> dict[str, Any]:
    """The device and the versions of what computes on it."""
    versions = {}
    for name in ("torch", "torch_geometric", "triton", "numba"):
        try:
            versions[name] = getattr(__import__(name), "__version__", "unknown")
        except ImportError:
            versions[name] = None
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {"device": device, "name": name, "python": platform.python_version(), **versions}


def run_all(options: argparse.Namespace) -> int:
    """Every part in a process of its own; what fails says why in place of its figures."""
    found: dict[str, Any] = {"machine": machine(options.device), "toy": options.toy}
    for part in PARTS:
        start = time.perf_counter()
        command = [sys.executable, __file__, part, "--device", options.device]
        command += ["--toy"] if options.toy else []
        failed = ""
        try:
            done = subprocess.run(command, capture_output=True, timeout=LIMITS[part])
            said = done.stdout
            if done.returncode:
                failed = done.stderr.decode(errors="replace")[-2000:]
        except subprocess.TimeoutExpired as late:
            said, failed = late.stdout or b"", f"longer than {LIMITS[part]} s"
        lines = said.decode().splitlines()
        found[part] = json.loads(lines[-1]) if lines else {}
        if failed:
            found[part] |= {"failed": failed, "passed": False}
        print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")  # what there is, so far
    return int(not all(found[part].get("passed", True) for part in PARTS))


def table(path: Path) -> str:
    """Markdown of the figures of a run."""
    found = dict.fromkeys(PARTS, {"not_run": "the run ended before"}) | json.loads(path.read_text())
    where = found["machine"]
    lines = [
        f"{where['name']}, torch {where['torch']}, PyG {where['torch_geometric']}, Triton "
        f"{where['triton']}.",
        "",
        "| cells | k | dtype | ours | `TransformerConv` | gather + SDPA | bytes over copy |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["attention"].get("rows", ()):
        sides = [
            f"{1e3 * s['seconds']:.2f} ms"
            if "seconds" in s
            else ("failed" if "failed" in s else "out of memory")
            for s in (row["ours"], row["pyg"], row["sdpa"])
        ]
        shown = f"{row['cells']:,} | {row['k']} | {row['dtype']} | {' | '.join(sides)}"
        lines.append(f"| {shown} | {row['forward_over_copy']:.2f} |")
    lines += ["", "| what | figure |", "|---|---|"]
    for part in ("parity", "same_bits"):
        lines.append(f"| {part} | {'passed' if found[part].get('passed') else 'FAILED'} |")
    steps = [*found["transformer"].get("rows", ()), found["spatia"]]
    for row in steps:
        if "cells_per_second" in row:
            name = f"Spatia.{row['size']}" if "size" in row else "GraphTransformer"
            memory = f", {row['gb']:.1f} GB" if "gb" in row else ""
            lines.append(
                f"| training step of {name}, {row['cells']:,} cells | "
                f"{row['cells_per_second']:,.0f} cells/s{memory} |"
            )
    if found["unet"].get("images_per_second"):
        u = found["unet"]
        lines.append(
            f"| sampling, {u['size_px']} px, {u['steps']} steps | "
            f"{u['images_per_second']:.1f} images/s |"
        )
    lines += _pair_lines(found["stofm"])
    for part in PARTS:
        why = found[part].get("not_run") or found[part].get("failed", "").strip()
        if why:
            lines.append(f"| {part} | not measured, or in part: {why.splitlines()[-1]} |")
    return "\n".join(lines)


def _pair_lines(found: dict[str, Any]) -> list[str]:
    lines = ["", "| nodes | dtype | way | forward and backward | memory |", "|---|---|---|---|---|"]
    for row in found.get("rows", ()):
        took = f"{1e3 * row['seconds']:.2f} ms" if "seconds" in row else "out of memory"
        memory = f"{1e3 * row['gb']:,.0f} MB" if "gb" in row else ""
        lines.append(f"| {row['nodes']:,} | {row['dtype']} | {row['way']} | {took} | {memory} |")
    for name, error in found.get("error", {}).items():
        lines += ["", f"{name}: error {error['ours']:.1e}, of the plain way {error['plain']:.1e}."]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["all", "table", *PARTS])
    parser.add_argument("json", nargs="?", type=Path, help="of the table")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--toy", action="store_true", help="sizes for a CPU")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    if options.part == "all":
        return run_all(options)
    if options.part == "table":
        print(table(options.json))
        return 0
    print(json.dumps(PARTS[options.part](Bench(options.device, options.toy))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
