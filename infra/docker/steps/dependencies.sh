#!/usr/bin/env bash
# What the project needs, at the versions of constraints.txt. A layer of its own: the project changes more often.
#
#   dependencies.sh SOURCE    folder with pyproject.toml and constraints.txt
#
# PYTHON is installed into (python3). TORCH_INDEX takes PyTorch's wheels from there, such as those without CUDA.
set -euo pipefail

PYTHON=${PYTHON:-python3}
cd "$1"

# Compiled files of pip carry times: two builds would differ.
install() {
  "$PYTHON" -m pip install --quiet --no-compile --root-user-action ignore --constraint constraints.txt "$@"
}

required() {
  "$PYTHON" - <<'PROGRAM'
import tomllib

print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")
PROGRAM
}

if [ -n "${TORCH_INDEX:-}" ]; then
  install --no-deps --index-url "$TORCH_INDEX" torch torchvision
fi
listing=$(mktemp)
required >"$listing"
install --requirement "$listing"
rm "$listing"
"$PYTHON" -m compileall -q --invalidation-mode unchecked-hash \
  "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" || true # some packages ship what this Python can't compile
