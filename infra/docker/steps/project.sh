#!/usr/bin/env bash
# The project itself, without what it needs.
#
#   project.sh SOURCE    the working tree; it stays as it is
#
# PYTHON is installed into (python3).
set -euo pipefail

PYTHON=${PYTHON:-python3}
BUILD=$(mktemp -d)
trap 'rm -rf "$BUILD"' EXIT

cp -r "$1"/{pyproject.toml,constraints.txt,README.md,LICENSE,model,pipeline,jobs} "$BUILD"
# For what it is built with: older and newer pip.
export PIP_CONSTRAINT=$BUILD/constraints.txt PIP_BUILD_CONSTRAINT=$BUILD/constraints.txt
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$BUILD/wheel" "$BUILD"
# By its name: from a folder or file, pip would write down where that was.
"$PYTHON" -m pip install --quiet --no-compile --no-deps --no-index --find-links "$BUILD/wheel" --root-user-action ignore ssd-batch
cd "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
"$PYTHON" -m compileall -q --invalidation-mode unchecked-hash model pipeline jobs
