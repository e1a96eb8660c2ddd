#!/usr/bin/env bash
# Debian packages: g++ compiles the network (torch.compile), on CPUs and through Triton; without it detection is slower, and works.
#
#   packages.sh [APT_OPTION...]    such as --simulate
set -euo pipefail

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" g++
