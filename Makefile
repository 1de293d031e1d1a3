# make demo    a whole simulated upgrade; needs Go and nothing else
# make test    everything that must hold before a change goes in
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

GO       ?= go
FUZZTIME ?= 10s
# The race detector needs cgo, which a cross compiling environment may have
# switched off.
TESTFLAGS ?= -race -timeout 15m

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The real programs that tests run, and the Debian packages that bring them.
# In CI a missing one fails the test that needs it, elsewhere it skips it.
PROGRAMS := nginx sshd ssh-keygen ip unshare nsenter
PACKAGES := nginx openssh-server openssh-client iproute2 util-linux

empty :=
space := $(empty) $(empty)
comma := ,

ifeq ($(CI),true)
export UPGRADECTL_REQUIRE ?= $(subst $(space),$(comma),$(PROGRAMS))
endif

# One call of the package manager: every further one costs seconds.
APT_INSTALL := export DEBIAN_FRONTEND=noninteractive; \
	apt-get -o DPkg::Lock::Timeout=300 update; \
	apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $(PACKAGES)

.PHONY: all
all: test

.PHONY: demo
demo:
	$(GO) run ./cmd/upgradectl simulate

.PHONY: test
test: export UPGRADECTL_SLOW := 1
test: programs lint cross
	$(GO) test $(TESTFLAGS) ./...
	$(GO) test -run 'TestCrashMatrix|TestTamper' ./upgrade/engine # without -race: every pair of faults, every byte

# programs installs what is missing when it is root on Debian in CI; at a desk
# it only says what is missing.
.PHONY: programs
programs:
	@missing=; \
	for p in $(PROGRAMS); do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v "$$p" >/dev/null || missing="$$missing $$p"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$${CI:-}" = true ] && [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then \
		$(APT_INSTALL); \
	else \
		echo "not installed:$$missing: the tests that need them are skipped ('make deps' installs them on Debian)" >&2; \
	fi

.PHONY: deps
deps:
	@if [ ! -e /etc/debian_version ]; then \
		echo "this is not Debian; install by hand what brings: $(PROGRAMS)" >&2; exit 1; \
	elif [ "$$(id -u)" != 0 ]; then \
		echo "needs root: sudo make deps" >&2; exit 1; \
	fi; \
	$(APT_INSTALL)

.PHONY: lint
lint:
	@bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "gofmt would change:" $$bad >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff

# Vetting type-checks the tests too, and writes no binary.
.PHONY: cross
cross:
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build ./...
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) vet ./...

.PHONY: bench
bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# Each fuzz target for FUZZTIME: go test fuzzes one target of one package at a
# time.
.PHONY: fuzz
fuzz:
	@grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort -u | \
	while IFS=: read -r file func; do \
		name=$${func#func }; \
		echo "$$(dirname "$$file") $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$(dirname "$$file")" </dev/null; \
	done
