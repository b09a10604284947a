#!/bin/sh
# Rebuilds models/seed2020 and tests/models from what is checked in, in a virtual environment of its own (.venv here).
set -eu
cd "$(dirname "$0")"
export PYTHONDONTWRITEBYTECODE=1
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install --quiet -r requirements.txt
.venv/bin/python seed2020.py ../seed2020
PYTHONPATH=. .venv/bin/python ../../tests/models/make.py ../../tests/models
git --no-pager diff --stat -- ../seed2020 ../../tests/models
