#!/bin/sh
# Makes the environment of `make test-adaptors` or `make test-ray`: Fieldscope's own environment, and beside it the
# libraries of a lock.        sh tests/beside.sh PYTHON VENV BASE LOCK
#
# PYTHON is that of BASE, the environment that `make setup` made. Its packages are seen and not installed again, so
# that torch is not downloaded twice. The lock is what the libraries add to it, and is installed without its
# dependencies (`pip install --dry-run --report`, in BASE): lancedb, llama-index-core, mcp and mteb for the adaptors,
# `ray[data]` for Ray.
set -eu

python=$1
venv=$2
base=$3
lock=$4

"$python" -m venv "$venv"
packages='import sysconfig; print(sysconfig.get_path("purelib"))'
echo "import site; site.addsitedir('$("$base/bin/python" -c "$packages")')" \
    > "$("$venv/bin/python" -c "$packages")/base-environment.pth"
"$venv/bin/python" -m pip install --no-deps -r "$lock"
touch "$venv/.ready"
