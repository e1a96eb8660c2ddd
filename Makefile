PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-s3 test-monitoring chaos check format clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/ssd-batch demo --output demo-out

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 20  # each process has its Ray clusters, which a file's tests share

test-s3: install
	infra/dev/ceph.sh install
	infra/dev/s3fault.sh install
	$(BIN)/python -m pytest -m s3 --s3 ceph

test-monitoring: install
	$(BIN)/python -m pytest -m monitoring --prometheus="$$(infra/dev/prometheus.sh install)"

chaos: install
	infra/dev/ceph.sh install
	infra/dev/s3fault.sh install
	$(BIN)/python -m tests.chaos

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy infra/kubernetes/check.py infra/kubernetes/components/cronjob/run_rayjob.py
	$(BIN)/lint-imports
	$(BIN)/hadolint infra/docker/Dockerfile
	$(BIN)/shellcheck infra/*/*.sh infra/docker/steps/*.sh
	$(BIN)/python infra/kubernetes/check.py

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo-out
