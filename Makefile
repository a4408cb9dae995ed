# make lab      build .venv and open the notebooks in JupyterLab
# make test     the same environment: ruff, then all tests, notebooks included
# make test-browser   only the tests of the player in a browser (Debian: apt-get install chromium)
# make venv     build .venv alone; .venv/bin/migsim is the command line
# make gallery  every notebook executed, as static pages with working players: build/gallery/index.html
# make learner  the notebooks without their solutions: build/learner
# make docs     the outputs and the picture that README and docs show, made anew
# make bench    run the measurements in bench/
# make lock     resolve pyproject.toml anew into requirements.lock
# make clean    remove everything that was built, .venv included

PYTHON ?= python3
BIN := .venv/bin
UV := uv==0.13.9
START := notebooks/00-start-here.ipynb
ALLOW_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
NO_BROWSER := $(if $(DISPLAY)$(WAYLAND_DISPLAY),,--no-browser)

.PHONY: lab test test-browser venv gallery learner bench docs schema lock clean

test: venv
	$(BIN)/ruff check .
	$(BIN)/pytest

test-browser: venv
	@command -v chromium >/dev/null || { echo "no chromium here; on Debian: apt-get install chromium"; exit 1; }
	$(BIN)/pytest tests/browser

lab: venv
	$(BIN)/jupyter lab $(NO_BROWSER) $(ALLOW_ROOT) --LabApp.default_url=/lab/tree/$(START)

gallery: venv
	$(BIN)/python -m migsim.gallery

learner: venv
	$(BIN)/python -m migsim.gallery --learner

bench: venv
	@for file in bench/bench_*.py; do \
	    [ -e "$$file" ] || { echo "bench/ has no bench_*.py yet"; break; }; \
	    $(BIN)/python "$$file" || exit 1; \
	done

docs: venv
	$(BIN)/python tests/refresh_docs.py

schema: venv
	$(BIN)/python -m migsim.schema > data/scenario.schema.json

venv: .venv/.ready

# From scratch each time: a .venv of another Python, or half made, is no ground to build on.
# uv is about ten times faster than pip; where it cannot be had, or fails, pip does the same.
.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "migsim needs Python 3.11 or newer as $(PYTHON); name another one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	    { echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@{ $(BIN)/pip install -q $(UV) && $(BIN)/uv pip install -q --python $(BIN)/python -r requirements.lock; } || \
	    { echo "no uv here: installing with pip, which takes longer"; $(BIN)/pip install -q -r requirements.lock; }
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

lock: venv
	@$(BIN)/pip install -q $(UV)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --all-extras --upgrade \
	    --no-header --no-annotate --no-emit-index-url -o requirements.lock pyproject.toml

clean:
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find migsim tests bench -name __pycache__ -prune -exec rm -rf {} +
