#!/bin/sh
# coverage: what of src the test suite reaches: lines and branches by directory, and the
# functions that nobody calls.
#
#   coverage.sh SOURCE BUILD [make-argument]...
#
# Builds SOURCE in BUILD with gcc --coverage, runs `make check` there (or what the
# arguments say) and lets gcov sum up.  Tests that fail are named, and nothing is said
# about what they would have reached.  Nor is what a process did that ends without exit
# (killed, or by _exit in a child), or that has become a user who may not write here.
set -eu

source=$1 build=$2
shift 2
[ $# -gt 0 ] || set -- check

mkdir -p "$build"
cd "$build"
[ -f Makefile ] || "$source/configure" --disable-hardening CC="${CC:-gcc}" \
	CFLAGS='-O0 -g --coverage -fprofile-update=atomic' >configure.log
make -j "$(nproc)" >make.log 2>&1
find . -name '*.gcda' -delete
find . -type d -exec chmod a+rwx {} +
umask 0
GATE=no make -k "$@" >check.log 2>&1 || sed -n 's/^\(FAIL: [^ ]*\).*/\1/p' check.log | sort -u

# One object a source is enough; the daemon of the crash tests is built of its own objects.
mkdir -p gcov
rm -f gcov/*
find "$PWD/src" -name '*.gcda' ! -name 'tests_crash_*' | sort >objects
(cd gcov && xargs gcov -b -c -p -r -s "$source" <../objects >report 2>errors) || cat gcov/errors
awk -v FS="'" '
	/^File / { file = $2; next }
	/^Lines executed:/ { split($0, p, /[:% ]+/); add("l", p[3], p[5]) }
	/^Branches executed:/ { next }
	/^Taken at least once:/ { split($0, p, /[:% ]+/); add("b", p[5], p[7]) }
	/^$/ { file = "" } # the sum over all comes without a name
	function add(kind, percent, total) {
		if (file !~ /^src\/.*\.c$/) return
		directory = file; sub(/\/[^\/]*$/, "", directory)
		reached[kind, directory] += percent * total / 100
		all[kind, directory] += total
		reached[kind, "all"] += percent * total / 100
		all[kind, "all"] += total
		names[directory]; names["all"]
		if (kind == "l") printf "%6.1f %s\n", percent, file >"files"
	}
	END {
		for (name in names)
			printf "%-14s lines %5.1f%% of %5d   branches %5.1f%% of %5d\n", name,
				100 * reached["l", name] / all["l", name], all["l", name],
				all["b", name] ? 100 * reached["b", name] / all["b", name] : 100,
				all["b", name]
	}' gcov/report | sort
echo 'least reached:'
sort -n files | head -n 8
