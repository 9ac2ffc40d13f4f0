# `make help` lists the targets. Each target first checks its tools (scripts/setup).

# rustup installs cargo into a directory that is not in the PATH of shells that were already open.
export PATH := $(PATH):$(HOME)/.cargo/bin
# Elixir needs a UTF-8 locale, which a minimal machine or a CI runner may not have set.
export ELIXIR_ERL_OPTIONS ?= +fnu
ifeq ($(filter %UTF-8 %utf8,$(LC_ALL) $(LANG)),)
export LC_ALL := C.UTF-8
endif
# Mesa's drivers print a warning without XDG_RUNTIME_DIR. The directory has to be private.
export XDG_RUNTIME_DIR ?= $(CURDIR)/_build/runtime

CARGO_FLAGS := --release --locked
# Named together, so that Cargo enables the same features of their dependencies as for the NIF library, and compiles these once.
CRATES := -p ex_cubecl_core -p ex_cubecl_runtime -p ex_cubecl

.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-core test-elixir matrix soak many-kernels schedulers model numpy ulp fuzz bench bench-numpy bench-nx gpu-report lint workflows audit docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## install what the other targets need (Debian, Ubuntu), or list what is missing
	@for goal in run test lint; do scripts/setup $$goal || exit 1; done

setup-%:
	@scripts/setup $*
	@[ -d "$$XDG_RUNTIME_DIR" ] || mkdir -p -m 700 "$$XDG_RUNTIME_DIR"

build: setup-build ## compile the NIF library and the Elixir code
	mix compile

demo: setup-run ## buffers on a real device, step by step
	mix run examples/demo.exs

test: test-core test-elixir ## the tests of the Rust crates, then those of Elixir

test-core: setup-test
	cargo test $(CARGO_FLAGS) $(CRATES) --features ex_cubecl_core/testing

# Schedulers without work sleep at once; they would use processor time to wait for the device. The VMs that tests start inherit it.
test-elixir: export ERL_FLAGS += +sbwt none +sbwtdcpu none +sbwtdio none
test-elixir: setup-test
	MIX_ENV=test mix test

matrix: test-elixir ## the Elixir tests on this Elixir, then on Debian 13 in a chroot if one can be created
	scripts/matrix

soak: setup-test ## random calls of everything for SOAK_SECONDS (600); SOAK_SEED replays a run
	MIX_ENV=test mix run test/soak.exs

# Without the optimizations of lavapipe's compiler and its cache on disk, which would keep a file for each kernel: the memory is the same, the time is a quarter.
many-kernels: setup-test ## MANY_KERNELS (100000) different kernels in one VM, which must take less than 1 GB of memory
	GALLIVM_PERF=nopt MESA_SHADER_CACHE_DISABLE=true MIX_ENV=test mix run test/many_kernels.exs

schedulers: setup-test ## how long calls with large arguments block a scheduler; run nothing else meanwhile
	MIX_ENV=test mix run test/schedulers.exs

model: setup-test ## the model tests, with far more sequences of calls
	PROPTEST_CASES=50000 cargo test $(CARGO_FLAGS) $(CRATES) --features ex_cubecl_core/testing --test model
	MIX_ENV=test EX_CUBECL_MODEL_TESTS=50000 mix test test/system/model_test.exs

# The test suite does not need NumPy; scripts/numpy finds it, or installs it in _build.
numpy: setup-test ## each operation and random programs in all types against NumPy: NUMPY_PROGRAMS (4000), NUMPY_SEED
	PYTHON=$$(scripts/numpy) MIX_ENV=test mix run test/numpy/compare.exs $${NUMPY_PROGRAMS:-4000} $(NUMPY_SEED)

ulp: setup-test ## the errors of functions of floats at every ULP_STEP-th number (65521; 1 takes days)
	MIX_ENV=test mix run test/ulp.exs

fuzz: setup-test ## look for inputs that break bounds, elements, the allocator, the NIFs
	command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	for target in spans elements allocator; do \
	  cargo fuzz run --fuzz-dir native/fuzz -s none $$target -- \
	    -max_total_time=$${FUZZ_SECONDS:-60} -max_len=800 -rss_limit_mb=8000 || exit 1; \
	done
	MIX_ENV=test EX_CUBECL_RAW_CALLS=1000000 mix test test/system/raw_test.exs

bench: setup-run ## measure against plain Elixir, raw wgpu and plain CubeCL
	cargo build $(CARGO_FLAGS) -p peers
	mix run bench/run.exs

bench-numpy: setup-run ## measure operations against NumPy; the table is bench/results/numpy.txt
	PYTHON=$$(scripts/numpy) mix run bench/against_numpy.exs

bench-nx: setup-run ## measure programs of Nx on all backends that ERL_LIBS has; the table is bench/results/nx.txt
	scripts/with_nx mix run bench/against_nx.exs

gpu-report: setup-test ## doctor, tests and benchmark on DEVICE (such as cuda:0) in one file in bench/results
	scripts/gpu_report $(DEVICE)

# The second clippy run checks the build without CUDA.
lint: setup-lint ## formatting, warnings, import cycles, clippy, Rust docs, Dialyzer
	mix format --check-formatted
	cargo fmt --all --check
	mix compile --force --warnings-as-errors
	mix xref graph --format cycles --fail-above 0
	scripts/with_nx mix do compile --warnings-as-errors + xref graph --format cycles --fail-above 0
	scripts/rust_cycles native/ex_cubecl_core native/ex_cubecl_runtime native/ex_cubecl
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets  -- -D warnings
	cargo clippy $(CARGO_FLAGS) -p ex_cubecl --no-default-features --features wgpu -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps --document-private-items $(CRATES)
	scripts/dialyze

workflows: ## the workflows of GitHub: their schema, their security
	scripts/workflows

audit: setup-lint ## the Rust dependencies: known weaknesses, licenses, sources
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --locked check

docs: setup-build ## the documentation as HTML, in doc/ (needs Hex)
	MIX_ENV=docs mix do deps.get, docs
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps --document-private-items $(CRATES)

clean: ## remove everything that was built
	rm -rf _build priv/native
	cargo clean
