PYTHON ?= python3
BIN := .venv/bin

# Each of a run's processes would compile all that it imports, torch's and Ray's thousands of files, where nothing keeps them compiled.
unexport PYTHONDONTWRITEBYTECODE

BENCHES := startup steady efficiency peers detector dataplane rows postprocess driver list plan views explore

.PHONY: install demo test test-fast test-gpu bench $(BENCHES) test-s3 test-monitoring chaos check site format clean

install: .venv/.installed

# Compiled on all cores, where pip takes one, and without packages' own tests; what can't be are some templates.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -q -j 0 -x '/tests?/' .venv/lib > .venv/compileall.log || true
	touch $@

demo: install
	$(BIN)/ssd-batch demo --output demo-out

# Each process has its Ray clusters, which a file's tests share; the long files of tests/e2e come first. TESTS adds flags.
# A GPU, if there is one, is for test-gpu.
test: install
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 20 $(TESTS)

test-fast: install
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n 2 -m "not slow and not s3 and not monitoring" --durations 5

# On a machine with a GPU.
test-gpu: install
	$(BIN)/python -m pytest -m gpu -ra

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

# make bench startup, or another of BENCHES; BENCH adds flags.
bench: install
	@true

$(BENCHES): install
	$(BIN)/ssd-batch bench $@ $(BENCH)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	$(BIN)/mypy infra/kubernetes/check.py infra/kubernetes/components/cronjob/run_rayjob.py
	$(BIN)/mypy infra/dev/site.py
	$(BIN)/lint-imports
	$(BIN)/python infra/dev/check_docstrings.py
	$(BIN)/hadolint infra/docker/Dockerfile
	$(BIN)/shellcheck infra/*/*.sh infra/docker/steps/*.sh
	$(BIN)/python infra/kubernetes/check.py
	$(BIN)/python infra/dev/site.py site

# The documentation as a site, in the folder of that name.
site: install
	$(BIN)/python infra/dev/site.py site

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv demo-out site
