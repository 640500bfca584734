# setup, demo, test, bench, crash, fuzz: see the README.
# A Python 3.11 or later is all that must be there; `test`, `bench` and `crash` add their peers from the distribution.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
ONLY ?=
KILLS ?= 100
SECONDS ?= 60

# Servers lie in sbin, which is not on everybody's path.
export PATH := $(PATH):/usr/sbin

ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

PEER_COMMANDS := storescu Orthanc dciodvfy mosquitto mosquitto_sub strace socat fusermount3
PEER_FILES := /usr/share/orthanc/plugins/libOrthancDicomWeb.so
PEER_PACKAGES := dcmtk orthanc orthanc-dicomweb dicom3tools mosquitto mosquitto-clients strace socat fuse3

.PHONY: setup demo test bench crash fuzz peers clean

setup: $(VENV)/.setup-demo

demo: setup
	$(BIN)/gateway demo

test: $(VENV)/.setup-test peers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q

bench: $(VENV)/.setup-test peers
	mkdir -p build
	$(BIN)/python tests/bench/run.py --only "$(ONLY)" --out build/bench.json

crash: $(VENV)/.setup-test peers
	mkdir -p build
	$(BIN)/python tests/crash/campaigns.py --only "$(ONLY)" --kills $(KILLS) --out build/crash.json

fuzz: $(VENV)/.setup-test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo,test,fuzz]'
	$(BIN)/python tests/fuzz/fuzz.py --only "$(ONLY)" --seconds $(SECONDS)

# One environment, growing by extras: demo, test.
$(VENV)/.setup-%: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo,$*]'
	touch $@

# Debian keeps venv in a package of its own.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { $(ROOT) apt-get update && $(ROOT) apt-get install -y python3-venv && $(PYTHON) -m venv --clear $(VENV); }

peers:
	@for command in $(PEER_COMMANDS); do command -v $$command >/dev/null || missing=1; done; \
	for file in $(PEER_FILES); do [ -e $$file ] || missing=1; done; \
	if [ -n "$$missing" ]; then \
		$(ROOT) apt-get update && DEBIAN_FRONTEND=noninteractive $(ROOT) apt-get install -y --no-install-recommends $(PEER_PACKAGES); \
	fi

clean:
	rm -rf $(VENV) build
