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
		-type f 2>/dev/null
	find examples tests -name corpus -prune -o -name '*.py' -print
	find examples/cluster -type f -print
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

# What is logged, and what cisternd(8) says of it: the same names of events and fields.
code() {
	find src -name '*.c' ! -path 'src/tool/*' -exec cat {} + | tr '\n\t' '[ *]'
}

page_events() {
	sed -n '/^\.Sh LOG/,/^\.Sh FILES/p; /^In json, events/q' man/cisternd.8 |
		sed -n '/^The events, by level/,/^In json, events/s/^\.It //p' | tr -s ' ,' '[\n*]' |
		grep -v -x -E 'error|warning|notice|info|debug' | sort -u
}

page_fields() {
	sed -n '/^In json, events/,/^\.Sh/s/^\.Va //p' man/cisternd.8 | tr -s ' ,;' '[\n*]' |
		grep . | sort -u
}

code_events() {
	code | grep -o -E '(log_event|log_connection|connection_log|connection_say)(_with)?\([a-zA-Z_]+, *"[a-z-]+"|make_line\([a-z]+, LOG_LEVEL_[A-Z]+, "[a-z-]+"' |
		sed 's/.*"\(.*\)"/\1/' | sort -u
}

code_fields() {
	{
		code | grep -o -E 'LOG_(TEXT|NUMBER)\("[a-z_]+"' | sed 's/.*"\(.*\)"/\1/'
		printf '%s\n' listener sink user # log.c makes these of a format
	} | sort -u
}

# differences A B: lines that only one of the two has.
differences() {
	printf '%s\n---\n%s\n' "$1" "$2" | awk '/^---$/ { second = 1; next }
		!second { a[$0] = 1; next } { b[$0] = 1 }
		END { for (x in a) if (!(x in b)) print x ": only in the code"
			for (x in b) if (!(x in a)) print x ": only in cisternd(8)" }'
}

result 'events of the log: code and cisternd(8) have the same' \
	"$(differences "$(code_events)" "$(page_events)")"
result 'fields of the log: code and cisternd(8) have the same' \
	"$(differences "$(code_fields)" "$(page_fields)")"
# What /metrics tells, and what cisternd(8) says of it.
code_metrics() {
	sed -n 's/^\t{"\([a-z_]*\)", COUNTER,.*/\1_total/p; s/^\t{"\([a-z_]*\)", [A-Z]*,.*/\1/p' \
		src/status/metrics.c | sort -u
}

page_metrics() {
	sed -n '/^\.Sh METRICS/,/^What deserves/p' man/cisternd.8 | tr -cs 'a-z_' '[\n*]' |
		grep -E '^(cistern|process)_' | sort -u
}

result 'metrics: code and cisternd(8) have the same' "$(differences "$(code_metrics)" "$(page_metrics)")"
result 'every event is named where it is logged' "$(
	code | grep -o -E '(log_event|log_connection|connection_log)(_with)?\([a-zA-Z_]+, *[^" ]+' |
		grep -v -E '\((enum|level, event)')"

# An archive's members have no folders.
result 'no two sources of a library share a name' "$(
	find src -name '*.c' ! -path 'src/tool/*' | sed 's|.*/||' | sort | uniq -d
	find src/tool -name '*.c' | sed 's|.*/||' | sort | uniq -d)"

if command -v shellcheck >/dev/null 2>&1; then
	result 'shellcheck' "$(scripts | tr '\n' '\0' | xargs -0 shellcheck -x -P SCRIPTDIR 2>&1)"
else
	skip 'shellcheck' 'shellcheck is not installed'
fi

# dpkg has a line, "not-installed", for every name that another package suggests.
bin=$(mktemp -d "${TMPDIR:-/tmp}/cistern-lint.XXXXXX") || exit 1
trap 'rm -rf "$bin"' EXIT
cat >"$bin/dpkg-query" <<'END'
#!/bin/sh
case $3 in
present) status=installed ;;
named) status=not-installed ;;
left) status=config-files ;;
*) exit 1 ;;
esac
echo "$2" | sed "s/\${db:Status-Status}/$status/g"
END
chmod 755 "$bin/dpkg-query"
missing=$(PATH=$bin:$PATH sh -c 'me=lint top=.; . script/common.sh
	packages_missing present named left unknown')
result 'script/common.sh: what dpkg only knows by name is missing' \
	"$([ "$missing" = 'named left unknown ' ] || echo "missing: $missing")"

echo "1..$number"
