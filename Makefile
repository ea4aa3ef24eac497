# `make` alone says what there is to do. Needed on the machine: make and python3, nothing else.

ADDRESS ?= 127.0.0.1:8000

# uv from PATH or, where there is none or only a shim for one that another Python has, installed into .uv.
UV := $(or $(shell uv --version >/dev/null 2>&1 && command -v uv),$(CURDIR)/.uv/bin/uv)
PYTHON := .venv/bin/python
PYTHON_VERSIONS := >=3.12,<3.15

# The Makefile of the rendered project and the tests use the same uv. Never add what is on PATH already: pyenv's shims
# find themselves, and call themselves for ever, when their folder is there a second time and spelled otherwise.
export PATH := $(PATH):$(CURDIR)/.uv/bin

.PHONY: help demo test lint lock bump

help:  ## Say what there is to do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/requirements  ## Render the default answers into demo/ and serve them; ARGS="project_name=Shop" changes answers
	@$(PYTHON) -c 'import socket; host, port = "$(ADDRESS)".split(":"); socket.create_server((host, int(port)))' 2>/dev/null \
		|| { echo "$(ADDRESS) is in use; choose another address: make demo ADDRESS=127.0.0.1:8001"; exit 1; }
	@rm -rf demo
	@.venv/bin/cookiecutter --no-input --output-dir demo . $(ARGS)
	@$(MAKE) --no-print-directory -C demo/* dev ADDRESS=$(ADDRESS)

test: .venv/requirements  ## Run all tests; ARGS="tests/test_answers.py -k slug" runs some
	@$(PYTHON) -m pytest $(ARGS)

lint: .venv/requirements  ## Check the template's own code
	@$(PYTHON) -m pre_commit run --all-files

lock: .venv/requirements  ## Pin all dependencies, the rendered project's too, after editing a pyproject.toml
	@UV=$(UV) $(PYTHON) scripts/lock.py $(ARGS)

bump: .venv/requirements  ## Take the newest version of everything and run all tests
	@UV=$(UV) $(PYTHON) scripts/lock.py --upgrade
	@$(MAKE) --no-print-directory test

.venv/requirements: requirements.txt | $(UV)
	@test -x $(PYTHON) || PATH="$$PATH:$$(echo $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.1[234]*/bin | tr ' ' ':')" \
		$(UV) venv --quiet --python '$(PYTHON_VERSIONS)' .venv \
		|| { echo "Python $(PYTHON_VERSIONS) is needed, and uv neither found one nor could download one."; exit 1; }
	@echo "Installing what $< names into .venv"
	@$(UV) pip sync --quiet --python $(PYTHON) --require-hashes --no-build requirements.txt
	@touch $@

$(CURDIR)/.uv/bin/uv:
	@python3 -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv \
		|| { echo "python3 could not install uv; see https://docs.astral.sh/uv/ for other ways to get it."; exit 1; }
