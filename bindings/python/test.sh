#!/bin/sh
# Tests the Python package against target/release/libmlbridge.so: format, lint, types, and the tests in tests/, on
# Debian's Python. The environment with the test programs is kept in target/python. Arguments go to pytest.
set -eu
cd "$(dirname "$0")"
ROOT=$(cd ../.. && pwd)
VENV=$ROOT/target/python

"$ROOT/tests/prerequisites" /usr/bin/python3:python3 /usr/lib/python3.11/ensurepip:python3-venv cc:gcc
[ -x "$VENV/bin/python" ] || /usr/bin/python3 -m venv "$VENV"
"$VENV/bin/pip" install --quiet --disable-pip-version-check -r requirements-test.txt

echo "python: format, lint, types"
sources=". ../unbound $ROOT/tests/hosts"
# shellcheck disable=SC2086
"$VENV/bin/ruff" format --config pyproject.toml --quiet --no-cache --check $sources
# shellcheck disable=SC2086
"$VENV/bin/ruff" check --config pyproject.toml --quiet --no-cache $sources
"$VENV/bin/mypy" --cache-dir "$ROOT/target/mypy"
echo "python: tests"
exec "$VENV/bin/python" -m pytest -q -p no:cacheprovider "$@"
