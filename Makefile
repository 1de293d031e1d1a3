# make demo    a whole simulated upgrade; needs Go and nothing else
# make test    everything that must hold before a change goes in
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

GO       ?= go
FUZZTIME ?= 10s
# The race detector needs cgo, which a cross compiling environment may have
# switched off.
TESTFLAGS ?= -race -timeout 30m

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The real programs that tests run, each with the Debian package that brings
# it, and packages that bring no program. In CI a missing one fails the test
# that needs it, elsewhere it skips it.
PROGRAMS := nginx=nginx sshd=openssh-server ssh-keygen=openssh-client ssh-agent=openssh-client ssh-add=openssh-client ip=iproute2 ss=iproute2 \
	unshare=util-linux nsenter=util-linux systemd-nspawn=systemd-container cloud-init=cloud-init docker-compose=docker-compose \
	dnf-3=dnf rpm=rpm rpmbuild=rpm createrepo_c=createrepo-c modifyrepo_c=createrepo-c cpio=cpio dpkg-deb=dpkg dpkg-scanpackages=dpkg-dev javac=default-jdk-headless setpriv=util-linux packer=packer node=nodejs npm=npm \
	ansible=ansible-core ansible-inventory=ansible-core busybox=busybox-static java=default-jre-headless \
	haproxy=haproxy ifquery=ifupdown dockerd=docker.io docker=docker.io iptables=iptables \
	sudo=sudo ssh=openssh-client ssh-agent=openssh-client setfacl=acl \
	supervisord=supervisor keepalived=keepalived arping=iputils-arping cron=cron \
	named=bind9 named-checkconf=bind9-utils named-compilezone=bind9-utils \
	libvirtd=libvirt-daemon virsh=libvirt-clients qemu-img=qemu-utils qemu-system-x86_64=qemu-system-x86
MODULES := libpam-systemd libvirt-daemon-driver-qemu libnginx-mod-http-lua libnginx-mod-mail libnginx-mod-stream nginx-doc python3-libcloud

# Where there is room in memory, crash tests write their runs there: it is
# processes that are killed in them, not machines, and a disk's fsyncs cost a
# fifth of the time. go's own files stay where they are.
INMEMORY := $(shell [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 1000000 ] 2>/dev/null && [ -w /dev/shm ] && echo GOTMPDIR=$${TMPDIR:-/tmp} TMPDIR=/dev/shm)

empty :=
space := $(empty) $(empty)
comma := ,

ifeq ($(CI),true)
export UPGRADECTL_REQUIRE ?= $(subst $(space),$(comma),$(foreach p,$(PROGRAMS),$(firstword $(subst =, ,$(p)))) $(MODULES))
endif

# MISSING sets the shell variable missing to the packages that are not there.
# A program may have come otherwise than by its package.
define MISSING
missing=; \
for p in $(PROGRAMS); do \
	PATH="$$PATH:/usr/sbin:/sbin" command -v "$${p%=*}" >/dev/null || missing="$$missing $${p#*=}"; \
done; \
for p in $(MODULES); do \
	dpkg-query -W -f '$${Status}' "$$p" 2>/dev/null | grep -q ' installed$$' || missing="$$missing $$p"; \
done
endef

# One call of the package manager: every further one costs seconds. cloud-init
# is for the lab's hosts: on a machine that does not have it yet, it stays off.
APT_INSTALL := export DEBIAN_FRONTEND=noninteractive; \
	[ -e /usr/bin/cloud-init ] || { mkdir -p /etc/cloud; touch /etc/cloud/cloud-init.disabled; }; \
	apt-get -o DPkg::Lock::Timeout=300 update; \
	apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends

.PHONY: all
all: test

.PHONY: demo
demo:
	$(GO) run ./cmd/upgradectl simulate

.PHONY: test
test: export UPGRADECTL_SLOW := 1
test: programs lint cross
	$(GO) test $(TESTFLAGS) ./...
	$(GO) test -run '^Test(FaultSweep|EachCallFailingOnce)$$' ./ecs ./slb # without -race: every call fails once, in every way
	$(GO) test -run 'TestCrashMatrix|TestTamper|TestRemovals' ./upgrade/engine # without -race: every pair of faults, every byte, every rule taken out once
	$(INMEMORY) $(GO) test -timeout 20m -parallel 4 -v -run '^Test(Rebuild)?KilledAnywhere$$' ./upgrade | grep -vE '^ *(=== |--- PASS)' # without -race: killed once, everywhere
	$(INMEMORY) $(GO) test -timeout 20m -parallel 4 -skip '^Test(Rebuild)?KilledAnywhere$$' ./upgrade # without -race: everything else, faults and samples of other crashes among it
	$(GO) test -timeout 15m -parallel 6 -run 'TestSimulateScripts|TestKilledProcess|TestInterruptedProcess' ./cmd/upgradectl # without -race: every scenario of an operator, kill -9 10 times, and SIGINT
	$(MAKE) lab nested foreign

# Whole procedures on real hosts: systemd-nspawn, Docker, rpm and yum, apt, real
# traffic. Without -race: the program under test is a process of its own. Two
# packages at a time: each test has a lab of its own, and waits where another
# computes.
.PHONY: lab
lab: programs
	@if [ "$$(uname -s)" != Linux ] || [ "$$(id -u)" != 0 ]; then \
		echo "the lab needs root on Linux: hosts in namespaces of their own, with mounts and networks" >&2; \
		[ "$${CI:-}" != true ]; exit; \
	fi; \
	UPGRADECTL_LAB=1 $(GO) test -count=1 -p 2 -timeout 20m -run '^TestLab' ./internal/lab ./upgrade/hostos ./upgrade

# Every schedule of the crash and the API matrix: hours.
.PHONY: crash
crash:
	UPGRADECTL_MATRIX=all $(GO) test -timeout 48h -run 'Test(Rebuild.*)?Killed|TestEveryAPICallFailsOnce' -v ./upgrade
	UPGRADECTL_SLOW=1 UPGRADECTL_MATRIX=all $(GO) test -timeout 6h -run TestKilledProcess -v ./cmd/upgradectl # 100 times

# The nested modules hold what importers must never see: peers to compare with,
# and clients that others wrote.
.PHONY: nested
nested:
	cd internal/bench && $(GO) vet ./... && $(GO) test ./...

.PHONY: foreign
foreign: programs
	@command -v npm >/dev/null || { echo "npm is not installed: the clients of other people are left out" >&2; [ "$${CI:-}" != true ]; exit; }; \
	cd internal/foreign && npm ci --no-audit --no-fund --ignore-scripts --loglevel error
	cd internal/foreign && $(GO) vet ./... && $(GO) test -timeout 15m ./...

# programs installs what is missing when it is root on Debian in CI; at a desk
# it only says what is missing.
.PHONY: programs
programs:
	@$(MISSING); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$${CI:-}" = true ] && [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then \
		$(APT_INSTALL) $$missing; \
	else \
		echo "not installed:$$missing: the tests that need them are skipped ('make deps' installs them on Debian)" >&2; \
	fi

.PHONY: deps
deps:
	@if [ ! -e /etc/debian_version ]; then \
		echo "this is not Debian; install by hand: $(PROGRAMS) $(MODULES)" >&2; exit 1; \
	elif [ "$$(id -u)" != 0 ]; then \
		echo "needs root: sudo make deps" >&2; exit 1; \
	fi; \
	$(MISSING); \
	if [ -n "$$missing" ]; then $(APT_INSTALL) $$missing; fi

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
	cd internal/bench && $(GO) test -run '^$$' -bench . -benchmem ./...

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
