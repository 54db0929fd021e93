# Two commands: `make` makes every table and figure of the default run, `make test` checks the project.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INTEROP := .venv-interop
BENCH := .venv-bench
CORES ?= all
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
KILLS ?= 100
RESULTS ?= results

# As after `. .venv/bin/activate`: jobs call `python` from the environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run start results check-results test test-slurm test-faults test-interop lint calibration bench install clean

run: install
	$(BIN)/snakemake --cores $(CORES)
	$(BIN)/snakemake --cores 1 --report results/report.html --quiet
	@echo
	@echo "answers: $(CURDIR)/results/summary.html"
	@echo "report:  $(CURDIR)/results/report.html"
	@echo "tables:  $(CURDIR)/results/tables/"
	@echo "figures: $(CURDIR)/results/figures/"
	@echo "pages:   $(CURDIR)/results/*/*/*/explanations/*/pages/index.html"

# A commented configuration, config/mine.yaml, for a model and a file of your own (docs/tutorial.md).
start: install
	@test -n "$(MODEL)" -a -n "$(DATA)" || { echo 'give both: make start MODEL=folder DATA=file'; exit 2; }
	$(BIN)/python -m lfp.start --model "$(MODEL)" --data "$(DATA)"

# The claims of a finished run, with its numbers, as docs/results.json and docs/results.md, and its
# figures for docs/gallery.md; those of other configurations stay as they are. AUDIT=FOLDER, the
# results of a run of config/detection.yaml, or of several in quotation marks, adds what every readout
# would have seen, and the figure of the first.
results: install
	$(BIN)/python -m lfp.claims write $(RESULTS) $(if $(AUDIT),--audit $(AUDIT))
	for figure in docs/figures/*.svg; do \
	  made=$(RESULTS)/figures/$$(basename $$figure); if [ -e $$made ]; then cp $$made $$figure; fi; done
	$(if $(AUDIT),cp $(firstword $(AUDIT))/figures/detection_by_share.svg docs/figures/)

# Which of the committed claims hold in a finished run of this machine, too? It fails where one flips.
check-results: install
	$(BIN)/python -m lfp.claims check $(RESULTS)

test: install lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The small cell through the Slurm profile, on a Slurm of one node that is brought up for it and taken down.
test-slurm: install
	$(BIN)/python -m pytest -q tests/slurm/check_slurm.py

# A hundred kills at random moments; the tables must be byte for byte those of a quiet run.
test-faults: install
	$(BIN)/python -m tests.faults --kills $(KILLS)

# Do SAELens and delphi open what the workflow writes, and is what SAELens and dictionary_learning write taken here? They
# have an environment of their own.
test-interop: install $(INTEROP)/installed
	rm -rf $(INTEROP)/artefacts $(INTEROP)/peers
	$(BIN)/python -m tests.interop.artefacts $(INTEROP)/artefacts
	LFP_ARTEFACTS=$(CURDIR)/$(INTEROP)/artefacts $(INTEROP)/bin/python -m pytest -q tests/interop/check_others.py
	TQDM_DISABLE=1 $(INTEROP)/bin/python -m tests.interop.peers $(INTEROP)/peers
	LFP_PEERS=$(CURDIR)/$(INTEROP)/peers $(BIN)/python -m pytest -q tests/interop/check_pretrained.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

# Do intervals cover and tests keep their level? Minutes; benchmarks/README.md has the figures.
calibration: install
	$(BIN)/python -m benchmarks.splits
	$(BIN)/python -m benchmarks.calibration

# Every stage beside the peer that one would pick instead, in turns; benchmarks/README.md has the figures.
bench: install $(BENCH)/installed
	$(BIN)/python -m benchmarks --peers $(BENCH)/bin/python --trl $(BENCH)/trl --trl-classic $(BENCH)/trl-classic $(STAGES)

install: $(VENV)/installed

# torch goes first: another package that asks for it would resolve to a build of its own choice.
# The package itself is installed editable, so that a notebook in the environment says `import lfp`.
# pip would compile one file after the other, which took half of its time; compileall has all cores.
# It leaves out tests and the models of transformers, of which a run imports three; templates that
# are no Python end in an error there, which is none here.
$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile "$$(grep '^torch==' requirements.txt)"
	$(PIP) --no-compile -r requirements.txt
	@$(BIN)/python -m compileall -qq -j 0 -x 'site-packages/.*(/tests/|transformers/models/)' $(VENV)/lib >/dev/null || true
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(INTEROP)/installed: requirements-interop.txt requirements-interop-nodeps.txt requirements-bench-nodeps.txt
	@test -x $(INTEROP)/bin/python || $(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements-interop.txt)"
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-interop.txt
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-interop-nodeps.txt
	@touch $@

# The peers' environment is that of `make test-interop` and what they ask for beside it. Two releases of TRL cannot share one.
$(BENCH)/installed: requirements-interop.txt requirements-bench-nodeps.txt
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements-interop.txt)"
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-interop.txt
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench-nodeps.txt
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(BENCH)/trl trl==1.12.0
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(BENCH)/trl-classic trl==0.11.4
	@touch $@

clean:
	rm -rf $(VENV) $(INTEROP) $(BENCH) results .snakemake
