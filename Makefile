# The commands of this repository. Each is a script in scripts/ that says what it needs and leaves.
# On a fresh Debian 12 or 13, as root or with sudo: `make demo`, `make test`.

.PHONY: help setup setup-vm build check demo test test-full bench install uninstall clean
.NOTPARALLEL:

help:
	@echo 'make demo        see it work: the real daemon in network namespaces, here and now'
	@echo 'make test        the tests that every change must pass'
	@echo 'make test-full   all tests, on the kernels 6.1 and 6.12 too; writes docs/TESTED.md'
	@echo 'make check       format, lints, documentation'
	@echo 'make bench       the benchmarks; writes docs/BENCHMARKS.md'
	@echo 'make build       anywand and anywan, in target/release'
	@echo 'make install     puts them under PREFIX (/usr/local), with a systemd unit'
	@echo 'make uninstall   takes them away again; the configuration stays'
	@echo 'make setup       the Debian packages that all this needs; setup-vm: those of make test'
	@echo 'make clean       removes target/, with the kernels fetched for the tests'

setup:
	@scripts/setup base

setup-vm:
	@scripts/setup base vm

build: setup
	cargo build --locked --release -p anywan-daemon -p anywan --bins

check: setup
	@scripts/check

demo: setup
	@scripts/demo

test: setup setup-vm
	@scripts/test

test-full: setup setup-vm
	@scripts/test --full

bench: setup setup-vm
	@scripts/bench

# Neither calls setup: they need nothing but what `make build` left.
install:
	@scripts/install

uninstall:
	@scripts/uninstall

clean:
	rm -rf "$${CARGO_TARGET_DIR:-target}"
