#!/bin/sh
# What one GPU says of this project, in under ten minutes: kernels against torch, speeds against the card's copy
# bandwidth, steps of three models beside `plan` and other methods, two ranks. Results: bench/results/gpu.json.
#
#   bench/gpu.sh                  on a machine with an NVIDIA GPU; on one without a network add --packages FOLDER
#   bench/gpu.sh --dry-run        all of it on the CPU with tiny models: does the script work?
#
# PYTHON names the interpreter; otherwise it is that of .venv, or python3. It needs torch with CUDA, transformers,
# safetensors, rich, psutil, click and pytest with hypothesis. For --packages, on a machine with a network:
#   pip install --no-deps --target FOLDER --requirement bench/alternatives/badam.txt --requirement bench/alternatives/peft.txt
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-}
[ -n "$python" ] || { [ -x .venv/bin/python ] && python=.venv/bin/python || python=python3; }
exec "$python" -m bench.gpu "$@"
