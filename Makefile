# The project's two commands, from a bare clone with a Rust toolchain and Python 3.11 or later:
#
#   make bench   builds the release wheel, installs it in a fresh .venv, compares event loops
#   make test    everything that must hold before a change goes in; uses .venv-test
#
# and two for its pages:
#
#   make docs      builds them in site/, with every link checked; uses .venv-docs
#   make picture   draws docs/speed.svg by the benchmark; on a machine that does nothing else
#
# Settings: PYTHON=python3.13 picks the interpreter; ARGS="--quick" goes to the benchmark,
# PYTEST_ARGS="-k timers" to pytest. `make install VENV=DIR` is the part of `make test` that builds
# the crate, for an environment of your own.

PYTHON ?= python3
CARGO ?= cargo
VENV ?= .venv-test
EXTRAS ?= bench,test
ARGS ?=
PYTEST_ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help bench picture test install rust-checks embedding python-checks pytest docs clean has-python has-cargo has-lints

export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP_INSTALL := -m pip install --quiet
MATURIN := maturin>=1.9.4,<2

# cargo's own steps build without libpython, which many Pythons do not have as a library. It also
# proves that what cargo tests needs no interpreter: a test that reaches one does not link.
RUST_ENV = PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON="$(abspath $(VENV))/bin/python"

# The tests of the Rust API have a Python inside: these steps link libpython, in a folder of their own,
# since other settings of PyO3 mean another build of it.
EMBED_ENV = CARGO_TARGET_DIR="$(abspath $(or $(CARGO_TARGET_DIR),target))/embedding" \
	PYO3_PYTHON="$(abspath $(VENV))/bin/python" \
	LD_LIBRARY_PATH="$$($(VENV)/bin/python tests/embedding/libpython.py)"
EMBED_FLAGS := --features async-runtimes

heading = @printf '\n==> %s\n' "$(1)"

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

has-python:
	@$(PYTHON) -c '' || { echo "make: no Python as PYTHON=$(PYTHON)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: PYTHON=$(PYTHON) is $$($(PYTHON) --version)," \
			"mioloop needs 3.11 or later: try PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $(PYTHON) cannot make virtual environments:" \
			"on Debian, apt-get install python3-venv" >&2; exit 1; }

has-cargo:
	@$(CARGO) --version >/dev/null || { \
		echo "make: no Rust toolchain: cargo is missing (see https://rustup.rs)" >&2; exit 1; }

has-lints: has-cargo
	@for tool in fmt clippy; do \
		$(CARGO) $$tool --version >/dev/null 2>&1 || rustup component add rustfmt clippy; \
	done

bench: has-python has-cargo
	$(call heading,a fresh environment: .venv)
	rm -rf .venv target/wheels/bench
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_INSTALL) '$(MATURIN)'
	$(call heading,the release wheel (some minutes the first time))
	.venv/bin/maturin build --release --interpreter .venv/bin/python --out target/wheels/bench
	$(call heading,installing it with the benchmark's needs)
	.venv/bin/python $(PIP_INSTALL) "$$(echo target/wheels/bench/*.whl)[bench]"
	@printf '\n==> python -m mioloop bench %s\n' '$(ARGS)'
	.venv/bin/python -m mioloop bench $(ARGS)

picture: ARGS += --plot docs/speed.svg
picture: bench

test: install rust-checks embedding python-checks pytest

install: has-python has-cargo
	$(call heading,the environment: $(VENV))
	[[ -x $(VENV)/bin/python && "$$($(VENV)/bin/python --version)" == "$$($(PYTHON) --version)" ]] \
		|| { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	$(VENV)/bin/python $(PIP_INSTALL) '$(MATURIN)'
	$(call heading,the wheel)
	rm -rf target/wheels/$(notdir $(VENV))
	$(VENV)/bin/maturin build --profile dev-release --interpreter $(VENV)/bin/python \
		--out target/wheels/$(notdir $(VENV))
	$(call heading,installing it with what the tests need)
	$(VENV)/bin/python $(PIP_INSTALL) --force-reinstall --no-deps target/wheels/$(notdir $(VENV))/*.whl
	$(VENV)/bin/python $(PIP_INSTALL) "$$(echo target/wheels/$(notdir $(VENV))/*.whl)$(if $(EXTRAS),[$(EXTRAS)])"

rust-checks: install has-lints
	$(call heading,cargo fmt)
	$(CARGO) fmt --check
	$(call heading,cargo clippy)
	$(RUST_ENV) $(CARGO) clippy --all-targets --all-features -- --deny warnings
	$(call heading,cargo test)
	$(RUST_ENV) $(CARGO) test

embedding: install rust-checks
	$(call heading,the Rust API)
	$(VENV)/bin/python tests/embedding/libpython.py || { echo "make: skipped"; exit 0; }; \
	$(EMBED_ENV) $(CARGO) build $(EMBED_FLAGS) --examples; \
	$(EMBED_ENV) $(CARGO) test $(EMBED_FLAGS) --lib --test embedding; \
	$(EMBED_ENV) $(CARGO) test $(EMBED_FLAGS) --doc; \
	$(EMBED_ENV) RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --quiet --no-deps $(EMBED_FLAGS)

python-checks: install rust-checks
	$(call heading,ruff)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(call heading,mypy)
	$(VENV)/bin/mypy
	$(call heading,stubtest)
	$(VENV)/bin/stubtest mioloop._core

pytest: install python-checks
	$(call heading,pytest)
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

docs: has-python
	$(call heading,the site)
	[[ -x .venv-docs/bin/mkdocs ]] || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python $(PIP_INSTALL) 'mkdocs>=1.6,<2'
	.venv-docs/bin/mkdocs build --strict

clean:
	rm -rf .venv .venv-docs .venv-test site target
