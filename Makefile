# `make demo`, `make test` and `make docs` set up whatever is missing first.
#   PYTHON=python3.12     the interpreter to build .venv with (3.11 to 3.13)
#   TORCH_INDEX=URL       another index for torch and torchvision (CPU-only wheels, a mirror)
#   UV_DEFAULT_INDEX=URL  a mirror of PyPI: uv, which installs the packages, reads no pip.conf
#   QUICK=1               a demonstration of three minutes in place of twenty
#   MINKOWSKI=--cpu       options of tools/install_minkowski.py, which by itself builds for the GPU
#                         where torch sees one

PYTHON ?= python3
TORCH_INDEX ?=
MINKOWSKI ?=
QUICK ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
MUTANTS := build/mutants/venv
IMPORTED := torch torchvision lightning torchmetrics scipy sympy matplotlib numpy
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

.PHONY: demo test docs setup lint mutants clean

demo: $(READY)
	QUICK=$(QUICK) $(BIN)/python tools/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# From the beginning each time: a page that is not read again does not warn again.
docs: $(READY)
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs build/docs
	@echo "open build/docs/index.html"

# Models and datasets lie elsewhere than they are imported from: types are checked as installed.
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	rm -rf build/types
	$(BIN)/python setup.py --quiet build_py --build-lib build/types
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --package geonorm

$(MUTANTS)/ready: pyproject.toml constraints.txt | $(READY)
	$(PYTHON) -m venv $(MUTANTS)
	$(BIN)/uv pip install --quiet --python $(MUTANTS)/bin/python --constraint constraints.txt \
		--group mutants
	touch $@

mutants: $(MUTANTS)/ready
	$(MUTANTS)/bin/python tools/mutants.py $(if $(SEED),--seed $(SEED)) \
		$(if $(COUNT),--count $(COUNT)) $(if $(FOLDER),--folder $(FOLDER)) \
		$(if $(WITHOUT),--without $(WITHOUT)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(AGAIN),--again)

setup: $(READY)

$(READY): setup.py pyproject.toml constraints.txt tools/system_packages.sh \
		$(wildcard geonorm/minkowski/*) $(wildcard geonorm/csrc/*)
	@echo "setting up $(VENV) (the first time downloads torch and builds MinkowskiEngine)"
	bash tools/system_packages.sh $(PYTHON)
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
		f"geonorm needs Python 3.11 to 3.13; $(PYTHON) is {sys.version.split()[0]}. \
		Name another one: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt uv
	$(INSTALL) pip setuptools wheel ninja
	$(INSTALL) $(if $(TORCH_INDEX),--default-index $(TORCH_INDEX)) torch torchvision
# MinkowskiEngine compiles while packages are fetched. Bytecode, which the first command would write
# on one core (torch has a file for newer Pythons), fills what the builds and the self-test leave idle.
	$(BIN)/python -m geonorm.minkowski.install --build-only $(MINKOWSKI) & building=$$!; \
		GEONORM_NO_EXTENSION=1 $(INSTALL) --no-build-isolation \
			--editable '.[train,test,docs,studies,data,scale,export,hub]' \
			|| { kill $$building; exit 1; }; \
		nice -n 19 $(BIN)/python -m compileall -qq -j 2 -x 'py312|/tests/' \
			$(patsubst %,$(VENV)/lib/*/site-packages/%,$(IMPORTED)) & compiling=$$!; \
		$(INSTALL) --no-build-isolation --no-deps --reinstall-package geonorm --editable . \
			|| { kill $$building $$compiling; exit 1; }; \
		wait $$building && $(BIN)/python tools/install_minkowski.py $(MINKOWSKI) && wait $$compiling
	touch $(READY)

clean:
	rm -rf $(VENV) build runs *.egg-info
