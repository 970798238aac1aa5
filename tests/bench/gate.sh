#!/bin/sh
# gate: what cisternd costs, counted instead of timed, so that a busy machine does not
# matter.  TAP; fails when a cost is more than 5 % over tests/bench/budget.txt.
#
#   gate.sh            checks
#   gate.sh --record   measures, and prints a new budget
#
# Counted are the instructions in user mode (callgrind) and the system calls (strace)
# of one worker and its sinks under fixed loads, a message, or a MB where messages are
# large.  What starting and stopping cost is measured without load and taken off.  The
# daemon is stopped while a load is sent, all of which fits into the sockets' buffers,
# so it finds the same each time.  What still depends on how its threads meet has a
# bound of its own (see `timed`).  A cost over its bound is measured again, up to
# three times; the least counts, for chance only adds.
#
# Environment: GATE=no (skips all), CISTERND (./cisternd), LOAD (tests/bench/load), srcdir (.), CFLAGS (those
# that cisternd was built with), TMPDIR.
set -u

cisternd=${CISTERND:-./cisternd}
load=${LOAD:-tests/bench/load}
budget=${BUDGET:-${srcdir:-.}/tests/bench/budget.txt}
record=no
[ "${1-}" = --record ] && record=yes

strict=1.05
loose=2
tries=3
patience=600 # tenths of a second

number=0
failed=0
work=''
daemon=''
tracer=''

# shellcheck disable=SC2317 # reached by the trap
cleanup() {
	if [ -n "$tracer" ]; then
		# One that is killed leaves what it traces; valgrind is the daemon itself.
		daemon=${daemon:-$(cat "$work/pid" 2>/dev/null)}
		kill -KILL "${daemon:-$tracer}" "$tracer" 2>/dev/null
	fi
	[ -n "$work" ] && rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

say() {
	if [ $record = yes ]; then echo "$*" >&2; else echo "# $*"; fi
}

skip_all() {
	[ $record = yes ] && say "$*" && exit 1
	echo "1..0 # SKIP $*"
	exit 0
}

bail_out() {
	echo "Bail out! $*"
	[ -n "$work" ] && [ -s "$work/log" ] && sed 's/^/# /' "$work/log"
	exit 1
}

# calculate EXPRESSION: with six digits; the expression is our own.
calculate() {
	awk "BEGIN { printf \"%.6g\", $1 }"
}

# holds CONDITION
holds() {
	awk "BEGIN { exit !($1) }"
}

[ "${GATE-yes}" = no ] && skip_all 'GATE=no'
[ -x "$cisternd" ] || skip_all "there is no $cisternd"
[ -x "$load" ] || skip_all "there is no $load"
grep -q -a -E '__(asan|tsan|ubsan|msan)_' "$cisternd" &&
	skip_all 'cisternd was built with sanitizers, which cost more than it does'
grep -q -a 'CISTERN_FAULT_TRACE' "$cisternd" &&
	skip_all 'cisternd was built with fault points, which have a cost of their own'

work=$(mktemp -d "${TMPDIR:-/tmp}/cistern-gate.XXXXXX") || exit 1

have_valgrind=
if ! command -v valgrind >/dev/null 2>&1; then
	why_no_valgrind='valgrind is not installed'
elif ! valgrind --tool=callgrind --callgrind-out-file=/dev/null true >/dev/null 2>&1; then
	why_no_valgrind='valgrind does not run here'
else
	have_valgrind=yes
fi
have_strace=
if ! command -v strace >/dev/null 2>&1; then
	why_no_strace='strace is not installed'
elif ! strace -f -c -o /dev/null true >/dev/null 2>&1; then
	why_no_strace='strace may not trace here'
else
	have_strace=yes
fi

# What instructions depend on besides our sources.
build() {
	compiler=$(readelf -p .comment "$cisternd" 2>/dev/null |
		sed -n 's/.*\(GCC\|clang\)[^0-9]*\(.*[^0-9.]\)\{0,1\}\([0-9][0-9]*\)\.[0-9.]*.*/\1 \3/p' |
		head -n 1)
	libevent=$("$cisternd" -V | sed -n 's/.*libevent \([0-9.]*\).*/\1/p')
	vector=$(grep -q -w avx2 /proc/cpuinfo && echo ', AVX2')
	echo "$(uname -m)$vector, ${compiler:-unknown compiler} ${CFLAGS:--g -O2}," \
		"$(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'other libc'), libevent $libevent"
}

# The loads: name, messages, their unit's count (messages, or MB), what is sent.  A
# connection sends at most 1 MiB, which the kernel takes whole from a sender.
loads='short lines json bulk spool'

describe() {
	case $1 in
	short) messages=2000 units=2000 unit=message what='short -c 2000 -n 2000 -s 1024' ;;
	lines | json) messages=196608 units=196608 unit=message what='stream -c 24 -b 1M -s 128' ;;
	bulk) messages=1024 units=64 unit=MB what='stream -c 64 -b 1M -s 64K' ;;
	spool) messages=500 units=500 unit=message what='short -c 500 -n 500 -s 1024' ;;
	none) messages=0 units=1 unit=run what= ;;
	esac
	# Calls that depend on how threads meet and not on what is done: a thread sleeps
	# and is woken, or finds more work before it sleeps (futex, epoll_wait, the
	# inbox's eventfd); a writer takes few batches at a time, or many (writev, and
	# the look at the file before it); memory grows with what waits (mprotect, brk...).
	timed='futex|epoll_wait|epoll_pwait|restart_syscall|sched_yield|writev|fstat|newfstatat'
	timed="$timed|mprotect|madvise|brk|mmap|munmap"
	# For the spool, write is what writes messages; elsewhere only the eventfd is.
	[ "$1" = spool ] || timed="$timed|write"
}

cat >"$work/config" <<END
workers = 1; address = "127.0.0.1"; port = 0; backlog = 4096; idle_timeout = 0;
max_in_flight = 4096; spill_directory = "$work"; pid_file = "$work/pid";
log = { target = "stderr"; level = "info"; };
listeners = {
	short = { deliver = ["null"]; };
	lines = { framing = "line"; deliver = ["lines"]; };
	json  = { framing = "line"; deliver = ["json"]; };
	bulk  = { framing = "line"; deliver = ["null"]; };
	spool = { deliver = ["spool"]; };
};
sinks = {
	null  = { type = "file"; path = "/dev/null"; format = "raw"; sync = false; };
	lines = { type = "file"; path = "$work/lines"; format = "line"; sync = false; };
	json  = { type = "file"; path = "$work/json"; format = "json"; sync = false; };
	spool = { type = "spool"; directory = "$work/spool"; sync = false; min_free = 0; };
};
END

# wait_until COMMAND...: polls; ends all when the daemon does, or after $patience.
wait_until() {
	waited=0
	until "$@"; do
		kill -0 "$tracer" 2>/dev/null || bail_out "$cisternd has ended"
		waited=$((waited + 1))
		[ $waited -le $patience ] || bail_out "waited in vain: $*"
		sleep .1
	done
}

# shellcheck disable=SC2317 # wait_until calls it
is_ready() {
	grep -q ' ready: ' "$work/log"
}

# shellcheck disable=SC2317 # wait_until calls it
is_stopped() {
	case $(sed 's/.*) //' "/proc/$daemon/stat") in [Tt]*) ;; *) false ;; esac
}

# run LOAD TOOL...: the daemon under the tool, from start to stop, and the load.
run() {
	describe "$1"
	name=$1
	shift
	rm -rf "$work/spool" "$work/pid"
	mkdir "$work/spool"
	: >"$work/log"
	"$@" "$cisternd" -c "$work/config" >/dev/null 2>"$work/log" &
	tracer=$!
	wait_until is_ready
	daemon=$(cat "$work/pid")
	if [ -n "$what" ]; then
		port=$(sed -n "s/.*listener $name on 127\.0\.0\.1:\([0-9]*\).*/\1/p" "$work/log")
		kill -STOP "$daemon"
		wait_until is_stopped
		# shellcheck disable=SC2086 # a list of words
		"$load" $what -p "$port" -C "$daemon" >"$work/sent" 2>&1 ||
			bail_out "$name: the load failed: $(cat "$work/sent")"
	fi
	kill -TERM "$daemon"
	wait "$tracer" || bail_out "$cisternd ended with $?"
	daemon=''
	tracer=''
	grep -q "received $messages messages: $messages accepted" "$work/log" ||
		bail_out "$name: not all of $messages messages were accepted"
	rm -rf "$work/lines" "$work/json" "$work/spool"
}

instructions() {
	run "$1" valgrind --tool=callgrind --fair-sched=try --log-file="$work/valgrind" \
		--callgrind-out-file="$work/callgrind.$1"
	total=$(sed -n 's/^summary: //p' "$work/callgrind.$1")
}

# Counts calls: those that depend on timing in $some, the others in $total.
calls() {
	run "$1" strace -f -c -o "$work/calls.$1"
	total=$(count "$1" '!')
	some=$(count "$1" '')
}

count() {
	awk -v timed="^($timed)\$" '
		$4 ~ /^[0-9]+$/ && $NF != "total" && '"$2"'($NF ~ timed) { sum += $4 }
		END { print sum + 0 }' "$work/calls.$1"
}

# show METRIC LOAD: where a cost over its bound comes from.
show() {
	if [ "$1" = instructions ]; then
		callgrind_annotate --auto=no --threshold=60 "$work/callgrind.$2" 2>/dev/null |
			grep -E '^ *[0-9,]+ \(' | cut -c 1-120 | head -n 15
	else
		head -n 15 "$work/calls.$2"
	fi | sed 's/^/# /'
}

budget_of() {
	awk -v name="$1" -v cost="$2" '$1 == name && $2 == cost { print $3 }' "$budget" 2>/dev/null
}

# judge LOAD METRIC FACTOR VALUE: 0 within, 1 over, 2 there is no budget for it
judge() {
	allowed=$(budget_of "$1" "$2")
	[ -n "$allowed" ] || return 2
	holds "$4 <= $allowed * $3"
}

# verdict LOAD METRIC FACTOR VALUE
verdict() {
	if [ $record = yes ]; then
		printf '%-6s %-13s %s\n' "$1" "$2" "$4"
		return
	fi
	number=$((number + 1))
	judge "$1" "$2" "$3" "$4"
	case $? in
	0) echo "ok $number - $1: $4 $2 a $unit, budget $allowed" ;;
	1)
		show "$2" "$1"
		echo "not ok $number - $1: $4 $2 a $unit are more than $3 times the budget, $allowed"
		failed=1
		;;
	*)
		echo "not ok $number - $1: $4 $2 a $unit, and no budget for them in $budget"
		failed=1
		;;
	esac
	holds "$3 == $strict && ${allowed:-0} * .9 > $4" &&
		say "$1: $2 have become much cheaper: gate.sh --record gives a new budget"
	return 0
}

skip() {
	number=$((number + 1))
	echo "ok $number - $1: $2 # SKIP $3"
}

# better OLD NEW: the lesser one of two measurements; for a record the greater one, so
# that chance has its place in the budget.
better() {
	if [ -z "$1" ] || { [ $record = no ] && holds "$2 < $1"; } ||
		{ [ $record = yes ] && holds "$2 > $1"; }; then
		echo "$2"
	else
		echo "$1"
	fi
}

check_instructions() {
	best=
	try=0
	while [ $try -lt $tries ]; do
		try=$((try + 1))
		instructions "$1"
		best=$(better "$best" "$(calculate "($total - $base) / $units")")
		[ $record = no ] && judge "$1" instructions $strict "$best" && break
	done
	verdict "$1" instructions $strict "$best"
}

check_calls() {
	best=
	best_timed=
	try=0
	while [ $try -lt $tries ]; do
		try=$((try + 1))
		calls "$1"
		best=$(better "$best" "$(calculate "($total - $(count none '!')) / $units")")
		best_timed=$(better "$best_timed" "$(calculate "($some - $(count none '')) / $units")")
		[ $record = no ] && judge "$1" calls $strict "$best" &&
			judge "$1" timed-calls $loose "$best_timed" && break
	done
	verdict "$1" calls $strict "$best"
	verdict "$1" timed-calls $loose "$best_timed"
}

here=$(build)
recorded=$(sed -n 's/^# for //p' "$budget" 2>/dev/null)
if [ $record = yes ]; then
	[ -n "$have_valgrind" ] || skip_all "$why_no_valgrind"
	[ -n "$have_strace" ] || skip_all "$why_no_strace"
	cat <<-END
		# budget: what gate.sh measured when it was recorded (gate.sh --record), the most of three.
		# load, cost, how much of it a message (bulk: a MB)
		#
		# calls may be 5 % more, and so may instructions, for they were counted
		# for $here
		# timed-calls (see gate.sh) vary with how threads meet, and may be twice as many.
	END
elif [ -n "$have_valgrind" ] && [ "$here" != "$recorded" ]; then
	have_valgrind=
	why_no_valgrind="recorded for $recorded; this is $here"
fi

if [ -n "$have_valgrind" ]; then
	instructions none
	base=$total
	for name in $loads; do
		check_instructions "$name"
	done
else
	for name in $loads; do
		skip "$name" instructions "$why_no_valgrind"
	done
fi

if [ -n "$have_strace" ]; then
	calls none
	for name in $loads; do
		check_calls "$name"
	done
else
	for name in $loads; do
		skip "$name" calls "$why_no_strace"
		skip "$name" timed-calls "$why_no_strace"
	done
fi

[ $record = yes ] || echo "1..$number"
exit $failed
