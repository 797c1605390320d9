#!/usr/bin/env bash
# What a GPU computes and how fast, as one JSON: tests/gpu/run.sh [--out gpu.json] [--device cpu] [--toy]
#
# Under 8 minutes on one H100 with Python 3.12, torch 2.11, PyG 2.8 and Triton 3.6; anndata and faiss
# are not needed, and without diffusers the U-Net is left out. Each part is a process of its own
# with a time limit, so that one that fails costs its own figures alone; the exit code is 1 then.
#
# The table of docs/benchmarks.md: python tests/gpu/measure.py table gpu.json
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$(mktemp -d)}"  # kernels compile once for all parts
exec "${PYTHON:-python3}" tests/gpu/measure.py all "$@"
