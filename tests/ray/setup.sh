#!/bin/sh
# Makes the environment of `make test-ray`: Fieldscope's own environment, and Ray beside it.
#        sh tests/ray/setup.sh PYTHON VENV BASE
#
# PYTHON is that of BASE, the environment that `make setup` made. Its packages are seen and not installed again. The lock
# is what `ray[data]` adds to them (`pip install --dry-run --report`, in BASE).
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
