#!/bin/sh
# Makes the environment of `make test-adaptors`: Fieldscope's own environment, and beside it the libraries that the
# adaptors are for.        sh tests/adaptors/setup.sh PYTHON VENV BASE
#
# PYTHON is that of BASE, the environment that `make setup` made. Its packages are seen and not installed again, so
# that torch is not downloaded twice. The lock is what these add to it, and is installed without its dependencies:
# lancedb, llama-index-core, mcp, mteb (`pip install --dry-run --report`, in BASE).
set -eu

python=$1
venv=$2
base=$3
here=$(dirname "$0")

"$python" -m venv "$venv"
packages='import sysconfig; print(sysconfig.get_path("purelib"))'
echo "import site; site.addsitedir('$("$base/bin/python" -c "$packages")')" \
    > "$("$venv/bin/python" -c "$packages")/base-environment.pth"
"$venv/bin/python" -m pip install --no-deps -r "$here/requirements.lock"
touch "$venv/.ready"
