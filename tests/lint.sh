#!/bin/sh
# lint: what can be seen without running anything.  TAP; $srcdir is the tree to look at.
set -u

cd "${srcdir:-.}" || exit 1

number=0

# result DESCRIPTION COMPLAINTS: a test that passes when there is nothing to complain of.
result() {
	number=$((number + 1))
	if [ -z "$2" ]; then
		echo "ok $number - $1"
	else
		printf '%s\n' "$2" | sed 's/^/# /'
		echo "not ok $number - $1"
	fi
}

skip() {
	number=$((number + 1))
	echo "ok $number - $1 # SKIP $2"
}

sources() {
	find src tests -name corpus -prune -o -name '*.[ch]' -print | sort
}

scripts() {
	find bootstrap script .ci examples tests completions debian/tests/smoke debian/cistern.postrm \
		-name corpus -prune -o \
		\( -name bootstrap -o -name '*.sh' -o -path 'completions/*' -o -path 'script/*' \
		-o -path .ci/run -o -path 'debian/*' \) -type f -print 2>/dev/null | sort
}

texts() {
	sources
	scripts
	find configure.ac Makefile.am ./*.md m4/cistern.m4 etc man .github .clang-format \
		.editorconfig debian/README.Debian debian/changelog debian/cistern.conf \
		debian/control debian/copyright debian/rules debian/source debian/tests \
		debian/upstream -type f 2>/dev/null
	find examples tests -name corpus -prune -o -name '*.py' -print
}

if command -v mandoc >/dev/null 2>&1; then
	for page in man/*.[1-9]; do
		# shellcheck disable=SC2016 # a dollar of mdoc's
		result "$page" "$(mandoc -Tlint -Wwarning "$page" 2>&1 |
			grep -v 'referenced manual not found')"
	done
else
	skip 'man pages' 'mandoc is not installed'
fi

result 'no file of more than 600 lines' "$(
	sources | while read -r file; do
		lines=$(wc -l <"$file")
		[ "$lines" -le 600 ] || echo "$file has $lines lines"
	done)"

result 'no white space at the end of a line' "$(texts | tr '\n' '\0' |
	xargs -0 grep -n '[[:blank:]]$' /dev/null)"

result 'every text ends with a newline' "$(
	texts | while read -r file; do
		[ -z "$(tail -c 1 "$file")" ] || echo "$file"
	done)"

result 'every file is listed in Makefile.am' "$(
	find man script src tests -name corpus -prune -o -type f -print |
		grep -E '^script/|\.([chs1-9]|py|sh|txt)$' | sort | while read -r file; do
		grep -q -E "(^|[[:space:]])${file%.c}(\.c)?([[:space:]]|\$)" Makefile.am ||
			echo "$file"
	done)"

result 'configure.ac, NEWS.md and debian/changelog have one version' "$(
	{
		sed -n 's/^AC_INIT(\[cistern\], \[\(.*\)\].*/configure.ac \1/p' configure.ac
		sed -n '/^## /{s//NEWS.md /p;q;}' NEWS.md
		sed -n '1s/^cistern (\(.*\)) .*/debian\/changelog \1/p' debian/changelog
	} | awk '{ n += !seen[$2]++; all = all $0 "; " }
		END { if (n != 1 || NR != 3) print all }')"

# An archive's members have no folders.
result 'no two sources of the library share a name' "$(
	find src -name '*.c' | sed 's|.*/||' | sort | uniq -d)"

if command -v shellcheck >/dev/null 2>&1; then
	result 'shellcheck' "$(scripts | tr '\n' '\0' | xargs -0 shellcheck -x -P SCRIPTDIR 2>&1)"
else
	skip 'shellcheck' 'shellcheck is not installed'
fi

echo "1..$number"
