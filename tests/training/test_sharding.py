"""Weights divided among two processes: the steps of one process, with half of them in each."""

import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import sys
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from spatiagraph.nn import ImageEncoder
from spatiagraph.training import gathered_weights, shard_encoder

torch.set_num_threads(1)
distributed.init_process_group("gloo")
rank = distributed.get_rank()


def encoder():
    torch.manual_seed(0)
    return ImageEncoder("vit_base_patch16_224", 64, img_size=32, depth=3)


def batch(of):
    generator = torch.Generator().manual_seed(10 + of)
    return torch.rand(4, 3, 32, 32, generator=generator)


def step(model, images):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss = sum(model(image).square().mean() for image in images) / len(images)
    loss.backward()
    optimizer.step()
    return loss.item()


whole, divided = encoder(), encoder()
step(whole, [batch(0), batch(1)])
shard_encoder(divided, init_device_mesh("cpu", (2,)))
step(divided, [batch(rank)])
kept = sum(p.to_local().numel() for p in divided.parameters() if isinstance(p, DTensor))
weights = gathered_weights(divided)
torch.save({
    "kept": kept,
    "total": sum(p.numel() for p in whole.parameters()),
    "blocks": sum(hasattr(b, "unshard") for b in divided.backbone.blocks),
    "whole": whole.state_dict(),
    "divided": weights,
    "start": encoder().state_dict(),
}, f"{sys.argv[1]}-{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_share_the_weights_of_the_image_encoder_of_base(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launch += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RANK", "WORLD"))}
    done = subprocess.run(
        [*launch, str(script), str(tmp_path / "out")],
        capture_output=True, text=True, check=False, timeout=500, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"out-{rank}.pt", weights_only=True) for rank in (0, 1)]
    total = ranks[0]["total"]
    assert sum(rank["kept"] for rank in ranks) == total
    assert max(rank["kept"] for rank in ranks) < 0.51 * total
    assert ranks[0]["blocks"] == 3
    moved = 0.0
    for name, expected in ranks[0]["whole"].items():
        for rank in ranks:
            torch.testing.assert_close(rank["divided"][name], expected, rtol=0, atol=2e-5)
        moved += float((expected - ranks[0]["start"][name]).abs().sum())
    assert moved > 100  # the step was one
