# Two commands: `make` makes every table and figure of the default run, `make test` checks the project.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all

# As after `. .venv/bin/activate`: jobs call `python` from the environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test lint calibration install clean

run: install
	$(BIN)/snakemake --cores $(CORES)
	$(BIN)/snakemake --cores 1 --report results/report.html --quiet
	@echo
	@echo "report:  $(CURDIR)/results/report.html"
	@echo "tables:  $(CURDIR)/results/tables/"
	@echo "figures: $(CURDIR)/results/figures/"

test: install lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

# Do intervals cover and tests keep their level? Minutes; benchmarks/README.md has the figures.
calibration: install
	$(BIN)/python -m benchmarks.calibration

install: $(VENV)/installed

# torch goes first: another package that asks for it would resolve to a build of its own choice.
$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) results .snakemake
