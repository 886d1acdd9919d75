#!/bin/sh
# Makes the environment of `make test-clients`: rerank clients as their makers ship them, apart from Fieldscope's own
# environment, as users have them.        sh tests/clients/setup.sh PYTHON VENV
#
# The lock is a freeze of: cohere, langchain-cohere, llama-index-postprocessor-jinaai-rerank, rerankers[api],
# schemathesis, pytest, pytest-asyncio, pytest-timeout. LangChain's package wants a cohere before 6, so the newest one
# lies in a folder of its own.
set -eu

python=$1
venv=$2
here=$(dirname "$0")

"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --no-deps -r "$here/requirements.lock"
"$venv/bin/python" -m pip install --no-deps --upgrade --target "$venv/newest" cohere==7.3.1
touch "$venv/.ready"
