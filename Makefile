# `make` alone says what there is to do. Needed on the machine: make and python3, nothing else.

ADDRESS ?= 127.0.0.1:8000

# uv from PATH or, where there is none or only a shim for one that another Python has, installed into .uv.
UV := $(or $(shell uv --version >/dev/null 2>&1 && command -v uv),$(CURDIR)/.uv/bin/uv)
PYTHON := .venv/bin/python
PYTHON_VERSIONS := >=3.12,<3.15

# Nothing is compiled that has no wheel, which takes compilers and runs code of the package; empty, this allows it.
BUILD := --no-build

NO_VENV = uv could not make .venv, for the reason above. It needs Python $(PYTHON_VERSIONS), found on this machine or \
	downloaded, and a cache to write to: UV_CACHE_DIR names another one.
NO_SYNC = uv could not install everything, for the reason above. A package that has no wheel for this machine is compiled \
	only if the line BUILD in the Makefile is empty.

# The Makefile of the rendered project and the tests use the same uv. Never add what is on PATH already: pyenv's shims
# find themselves, and call themselves for ever, when their folder is there a second time and spelled otherwise.
export PATH := $(PATH):$(CURDIR)/.uv/bin

.PHONY: help demo test lint lock bump release outages

help:  ## Say what there is to do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/requirements  ## Render the default answers into demo/ and serve them; ARGS="project_name=Shop" changes answers
	@$(PYTHON) -c 'import socket; host, port = "$(ADDRESS)".split(":"); socket.create_server((host, int(port)))' 2>/dev/null \
		|| { echo "$(ADDRESS) is in use; choose another address: make demo ADDRESS=127.0.0.1:8001"; exit 1; }
	@rm -rf demo
	@.venv/bin/cookiecutter --no-input --output-dir demo . $(ARGS)
	@$(MAKE) --no-print-directory -C demo/* dev ADDRESS=$(ADDRESS)

test: .venv/requirements  ## Run all tests; ARGS="tests/test_answers.py -k slug" runs some
	@$(PYTHON) -m pytest $(ARGS) || { test $$? = 1 && echo "What failed, once more and one by one:" \
		&& $(PYTHON) -m pytest --last-failed --numprocesses=0 $(ARGS); }

outages: .venv/requirements  ## Let servers fail, and write what visitors see to docs/outages.md
	@$(PYTHON) benchmarks/outages.py $(ARGS)

lint: .venv/requirements  ## Check the template's own code
	@$(PYTHON) -m pre_commit run --all-files

lock: .venv/requirements  ## Pin all dependencies, the rendered project's too, after editing a pyproject.toml
	@UV=$(UV) $(PYTHON) scripts/lock.py $(ARGS)

bump: .venv/requirements  ## Take the newest version of everything and run all tests
	@UV=$(UV) $(PYTHON) scripts/lock.py --upgrade
	@$(MAKE) --no-print-directory test

release: .venv/requirements  ## Tag the version in pyproject.toml, if the CHANGELOG tells of it; AT=commit tags an older one
	@$(PYTHON) scripts/release.py $(AT)

# Made in a folder of its own and moved once it is whole: what was interrupted is never used. It may be moved on, too.
.venv/requirements: requirements.txt | $(UV)
	@echo "Installing what $< names into .venv"
	@new=.uv/venv-$$$$; trap 'rm -rf $$new' EXIT; trap 'exit 1' INT TERM; \
	PATH="$$PATH:$$(echo $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[234]*/bin | tr ' ' ':')" \
		$(UV) venv --quiet --relocatable --python '$(PYTHON_VERSIONS)' $$new || { echo "$(NO_VENV)"; exit 1; }; \
	$(UV) pip sync --quiet --python $$new --require-hashes $(BUILD) $< || { echo "$(NO_SYNC)"; exit 1; }; \
	touch $$new/requirements; \
	test $@ -nt $< || { rm -rf .venv; $$new/bin/python -c "import os; os.rename('$$new', '.venv')"; } 2>/dev/null || test $@ -nt $<

$(CURDIR)/.uv/bin/uv:
	@new=.uv/new-$$$$; trap 'rm -rf $$new' EXIT; trap 'exit 1' INT TERM; \
	python3 -m venv $$new && $$new/bin/python -m pip install --quiet --disable-pip-version-check uv \
		|| { echo "python3 could not install uv; see https://docs.astral.sh/uv/ for other ways to get it."; exit 1; }; \
	mkdir -p $(@D); mv $$new/bin/uv $@
