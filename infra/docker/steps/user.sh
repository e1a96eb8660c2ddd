#!/usr/bin/env bash
# The user that everything runs as. Its home is /tmp: the rest of the file system may be read-only.
#
#   user.sh [USERADD_OPTION...]    such as --prefix DIR
set -euo pipefail

groupadd "$@" --gid 10001 ssd-batch
useradd "$@" --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /bin/bash ssd-batch
