#!/bin/sh
# coverage: what of src the test suite reaches: lines and branches by directory, and the
# functions that nobody calls.
#
#   coverage.sh SOURCE BUILD [make-argument]...
#
# Builds SOURCE in BUILD with gcc --coverage, runs `make check` there (or what the
# arguments say) and sums up (coverage.py); BUILD/holes has each line and branch that was
# not reached.  Tests that fail are named, and nothing is said
# about what they would have reached.  Nor is what a process did that ends without exit
# (killed, or by _exit in a child), or that has become a user who may not write here.
#
# gcov has a wrapper for execve that writes counts down for the last time: after vfork, that
# would be the daemon's last ones, too.  -fno-builtin-execve keeps it away.
set -eu

source=$1 build=$2
shift 2
[ $# -gt 0 ] || set -- check

mkdir -p "$build"
cd "$build"
[ -f Makefile ] || "$source/configure" --disable-hardening CC="${CC:-gcc}" \
	CFLAGS='-O0 -g --coverage -fprofile-update=atomic -fno-builtin-execve' >configure.log
make -j "$(nproc)" >make.log 2>&1
find . -name '*.gcda' -delete
find . -type d -exec chmod a+rwx {} +
umask 0
GATE=no make -k "$@" >check.log 2>&1 || sed -n -E 's/^((FAIL|ERROR): [^ ]*).*/\1/p' check.log | sort -u

find "$PWD/src" -name '*.gcda' | sort >objects
mkdir -p gcov
(cd gcov && xargs "${PYTHON:-python3}" "$source/tests/coverage.py" ../holes <../objects)
