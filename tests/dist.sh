#!/bin/sh
# dist: the release is the same to the bit whoever makes it, where, when and how, and
# has every file.  TAP; takes a clone, of which the last commit is looked at.
set -u

top=$(cd "${srcdir:-.}" && pwd)
number=0

# result DESCRIPTION STATUS COMPLAINTS-FILE
result() {
	number=$((number + 1))
	if [ "$2" -eq 0 ]; then
		echo "ok $number - $1"
	else
		tail -n 60 "$3" | sed 's/^/# /'
		echo "not ok $number - $1"
	fi
}

skip_all() {
	echo "1..0 # SKIP $*"
	exit 0
}

[ -e "$top/.git" ] || skip_all 'not a clone'
for tool in git autoreconf automake xz; do
	command -v $tool >/dev/null 2>&1 || skip_all "$tool is not installed"
done
tar --version 2>/dev/null | grep -q GNU || skip_all 'tar is not GNU tar'

work=$(mktemp -d "${TMPDIR:-/tmp}/cistern-dist.XXXXXX") || exit 1
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$work"
# A bundle is anybody's to clone.
git -C "$top" bundle create -q "$work/bundle" HEAD 2>"$work/log" ||
	{ result 'the clone can be read' 1 "$work/log"; echo 1..1; exit 0; }
unset SOURCE_DATE_EPOCH CDPATH MAKEFLAGS MFLAGS MAKELEVEL MAKE_TERMOUT MAKE_TERMERR

# make_dist DIRECTORY UMASK TIME-ZONE LOCALE: clones and makes the release there, in a
# build directory of its own.
cat >"$work/make_dist" <<'END'
set -eu
umask "$2"
export TZ="$3" LC_ALL="$4" HOME="$1"
cd "$1"
git clone -q "$5" clone
# Times of a clone are those of its making.
find clone -name .git -prune -o -type f -exec touch -d "$6" {} +
clone/bootstrap
mkdir build
cd build
../clone/configure
make dist
END

mkdir -p "$work/one" "$work/at/another/place"
sh "$work/make_dist" "$work/one" 022 UTC C "$work/bundle" '2020-02-02 02:02:02' \
	>"$work/log" 2>&1 </dev/null
result 'a clone makes a release' $? "$work/log"
other=
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null 2>&1; then
	other='setpriv --reuid=65534 --regid=65534 --clear-groups'
	chown 65534:65534 "$work/at/another/place"
fi
$other sh "$work/make_dist" "$work/at/another/place" 077 Pacific/Auckland C.UTF-8 \
	"$work/bundle" '2011-03-03 03:03:03' >"$work/log" 2>&1 </dev/null
result "so does another${other:+, of another user}" $? "$work/log"

first=$(echo "$work"/one/build/*.tar.xz)
second=$(echo "$work"/at/another/place/build/*.tar.xz)
{
	tar -tvf "$first" --full-time >"$work/list.one"
	tar -tvf "$second" --full-time >"$work/list.two"
	diff "$work/list.one" "$work/list.two"
	cmp "$first" "$second"
} >"$work/log" 2>&1
result 'both are the same, to the bit' $? "$work/log"

# What only a clone needs stays there.
tar -tf "$first" | sed -n 's|^[^/]*/\(.*[^/]\)$|\1|p' | sort >"$work/released"
git -C "$work/one/clone" ls-files | grep -v -E '^\.git(attributes|ignore|hub/)' |
	sort | comm -23 - "$work/released" >"$work/log"
[ ! -s "$work/log" ]
result 'every file is in it' $? "$work/log"

# A release makes itself again, without git.
{
	mkdir "$work/again" && cd "$work/again" && tar -xf "$first" && cd cistern-* &&
		./configure && make dist && cmp "$first" cistern-*.tar.xz
} >"$work/log" 2>&1 </dev/null
result 'and it makes the same once more' $? "$work/log"

echo "1..$number"
