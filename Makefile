# Entry points. Everything is built in one profile, `release`, so that tract is compiled once; `make dist` makes what a
# packager ships.
#
#   make          the library, the command line, the header's symlinks
#   make demo     a real Unbound with the library: queries, answers, recorded verdicts
#   make test     everything that CI runs
#   make install  DESTDIR= PREFIX=/usr/local

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
CARGO ?= cargo
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
TARGET := target/release

.PHONY: all prerequisites dist demo demo-coredns test test-build test-rust test-c test-python test-hosts test-go test-long \
        bench install fuzz

all: prerequisites
	$(CARGO) build --release --locked
	ln -sf libmlbridge.so $(TARGET)/libmlbridge.so.0

# A C compiler and Rust 1.91; on Debian both come from apt.
prerequisites:
	@tests/prerequisites build

# As `all`, with the features of shared crates that the tests' own dependencies ask for: without them everything above
# would be compiled once more after `cargo test`.
test-build: prerequisites
	$(CARGO) build --release --locked --lib --bins --examples
	ln -sf libmlbridge.so $(TARGET)/libmlbridge.so.0

dist: prerequisites
	$(CARGO) build --profile dist --locked
	ln -sf libmlbridge.so target/dist/libmlbridge.so.0

demo: all
	@bindings/unbound/demo/run

demo-coredns: all
	@bindings/coredns/demo

test: test-rust test-c test-python test-hosts test-go

test-rust: prerequisites
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings
	$(CARGO) test --release --locked

test-c: test-build
	tests/abi/check
	tests/c/run
	tests/c/run --valgrind
	bindings/c/test
	tests/readme

test-python: test-build
	bindings/python/test.sh

test-hosts: test-build
	tests/hosts/run

test-go: test-build
	bindings/go/test.sh
	bindings/coredns/test.sh

# What takes too long for every change: real clusters at length, every route of the CoreDNS build, fuzzing.
test-long: test-build
	$(CARGO) test --release --locked -- --ignored
	bindings/coredns/test.sh --long
	tests/fuzz/run

# CORPUS=FILE: names with labels, to compare other detectors on.
bench: test-build
	tests/bench/run $(if $(CORPUS),--corpus $(CORPUS))
	$(CARGO) test --release --locked --test elastic_rates -- --ignored --nocapture --test-threads 1

fuzz: test-build
	tests/fuzz/run

install: dist
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/bin
	install -m 755 target/dist/libmlbridge.so $(DESTDIR)$(LIBDIR)/libmlbridge.so.$(VERSION)
	ln -sf libmlbridge.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libmlbridge.so.0
	ln -sf libmlbridge.so.0 $(DESTDIR)$(LIBDIR)/libmlbridge.so
	install -m 644 target/dist/libmlbridge.a $(DESTDIR)$(LIBDIR)
	install -m 644 include/mlbridge.h include/mlbridge.cdef $(DESTDIR)$(PREFIX)/include
	install -m 755 target/dist/mlbridge $(DESTDIR)$(PREFIX)/bin/mlbridge
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(PREFIX)/include|; s|@VERSION@|$(VERSION)|' mlbridge.pc.in \
	  > $(DESTDIR)$(LIBDIR)/pkgconfig/mlbridge.pc
