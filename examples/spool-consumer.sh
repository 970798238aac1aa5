#!/bin/sh
# spool-consumer.sh: hands each message of a spool to a command.
#
#	spool-consumer.sh [-1] DIRECTORY NAME COMMAND [ARGUMENT ...]
#
# DIRECTORY is the spool's, NAME this consumer's own.  The command has the message as
# its standard input, and in its environment SPOOL_FILE (the name in new/) and
# SPOOL_ID (the message's id).  When it succeeds the message is removed, otherwise it
# is tried again later.  With -1: until new/ has been gone through once.
#
# Several consumers with different names may work on one spool.  A message may be
# handed over twice (after a crash between the command's success and the removal):
# the command tells by SPOOL_ID.

set -u

once=
if [ "${1-}" = -1 ]; then
	once=1
	shift
fi
if [ $# -lt 3 ]; then
	echo "usage: $0 [-1] DIRECTORY NAME COMMAND [ARGUMENT ...]" >&2
	exit 64
fi
spool=$1
name=$2
shift 2

# On the spool's filesystem, so that a message is claimed by one rename.
work=$spool/work/$name
mkdir -p "$work" || exit 73

# Handed over with the id, and removed once that has worked.
handle() {
	file=$1
	shift
	base=${file##*/}
	if SPOOL_FILE=$base SPOOL_ID=${base%%.*} "$@" <"$file"; then
		rm -f -- "$file"
	else
		echo "$0: $base: exit code $?, tried again later" >&2
		failed=1
	fi
}

while :; do
	failed=
	# What an earlier life of this consumer had claimed, or what failed.
	for file in "$work"/*; do
		[ -f "$file" ] && handle "$file" "$@"
	done
	# In the order of time: names sort so.  Each is whole as soon as it is there.
	for file in "$spool"/new/*; do
		[ -f "$file" ] || continue
		# Another consumer may have been faster.
		mv -- "$file" "$work/" 2>/dev/null || continue
		handle "$work/${file##*/}" "$@"
	done
	if [ "$once" ]; then
		[ -z "$failed" ]
		exit
	fi
	sleep 1
done
