#!/bin/sh
# Makes the environment of `make test-studio`: Fieldscope with its extra `studio`, as docs/studio.md installs it.
#        sh tests/studio/setup.sh PYTHON VENV
#
# The versions are those of the main lock, and of a freeze of what `studio` adds to it. LangGraph's server wants a
# protobuf below 7; the newer one of the main lock is for the tests' OpenTelemetry exporter.
set -eu

python=$1
venv=$2
here=$(dirname "$0")

"$python" -m venv "$venv"
sed '/^protobuf==/d' "$here/../../requirements.lock" > "$venv/constraints.txt"
"$venv/bin/python" -m pip install -c "$venv/constraints.txt" -c "$here/requirements.lock" -e "$here/../..[studio]"
touch "$venv/.ready"
