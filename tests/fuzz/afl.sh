#!/bin/sh
# afl: AFL++ searches with a harness for so many seconds, from the corpora on.
#
#   afl.sh HARNESS CORPUS FOUND SECONDS WORDS
#
# A crash or a hang that it finds is a failure; FOUND/default/crashes has the inputs.
set -eu

harness=$1 corpus=$2 found=$3 seconds=$4 words=$5

command -v afl-fuzz >/dev/null || {
	echo 'afl.sh: afl-fuzz is missing (Debian: afl++)' >&2
	exit 69
}
rm -rf "$found" "$found.seeds"
mkdir -p "$found.seeds"
find "$corpus" -type f -size +0 | while read -r file; do
	cp "$file" "$found.seeds/$(basename "$(dirname "$file")").$(basename "$file")"
done
AFL_NO_UI=1 AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_AFFINITY=1 \
	afl-fuzz -i "$found.seeds" -o "$found" -x "$words" -V "$seconds" -t 2000+ -m none -- "./$harness" \
	>"$found.log" 2>&1 || {
	tail -n 20 "$found.log"
	exit 1
}
rm -rf "$found.seeds"
sed -n 's/^\(execs_done\|corpus_count\|saved_crashes\|saved_hangs\) *: /\1 /p' \
	"$found/default/fuzzer_stats" | tr '\n' ' ' | sed "s|^|$harness: |"
echo
grep -q '^saved_crashes *: 0$' "$found/default/fuzzer_stats"
