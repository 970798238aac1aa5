#!/bin/sh
# package: Debian's package, from the release to the last file that purging leaves.  TAP;
# $RELEASE is the tarball.
#
# Builds it, looks at it with lintian, makes a clean Debian with debootstrap (from the
# mirror that apt is set up for), and there installs, uses, upgrades, removes and purges
# it.  What runs there has mounts, processes and, for the daemon, a network of its own,
# which end with the command: nothing is left to be unmounted or killed.
set -u

srcdir=$(cd "${srcdir:-.}" && pwd)
# common.sh's log goes to the build directory.
top=$(pwd) me=tests/package.sh
. "$srcdir/script/common.sh"

number=0
work=
suite=

skip_all() {
	echo "1..0 # SKIP $*"
	exit 0
}

# check DESCRIPTION COMMAND...: a test that passes when the command succeeds.
check() {
	what=$1
	shift
	number=$((number + 1))
	begin=$(date +%s)
	if "$@" >"$work/log" 2>&1 </dev/null; then
		echo "ok $number - $what"
		echo "# $(($(date +%s) - begin)) s"
		return 0
	fi
	tail -n 60 "$work/log" | sed 's/^/# /'
	echo "not ok $number - $what"
	return 1
}

# What cannot be done any further is one failure.
stop() {
	echo "1..$number"
	exit 0
}

# ---------------------------------------------------------------- the packages

package_build() {
	cd "$work/build/source" && dpkg-buildpackage -us -uc && cd .. &&
		mkdir "$work/first" && cp cistern_*.deb "$work/first" &&
		rm -f "$work"/first/*dbgsym*
}

# A later version, with other files in /etc
package_build_later() {
	cd "$work/build/source" || return
	sed -i '1s/(\([^)]*\))/(\1+later)/' debian/changelog
	echo '# A later version' >>debian/cistern.conf
	echo '# A later version' >>etc/logrotate.d/cistern
	rm -f debian/*.debhelper.log debian/debhelper-build-stamp ../*.deb
	DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage -us -uc -b -nc && mkdir "$work/later" &&
		cp ../cistern_*.deb "$work/later" && rm -f "$work"/later/*dbgsym*
}

lintian_is_silent() {
	set -- "$work"/build/cistern_*.changes
	lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$1" \
		>"$work/lintian" 2>&1 || { cat "$work/lintian"; return 1; }
	# It calls it a success when it has looked at nothing.
	! grep -i -E '^skipping|no packages' "$work/lintian" || return
	# Nothing is overridden.
	[ -z "$(find "$work/build/source/debian" -name '*lintian-overrides')" ]
}

package_has_all() {
	dpkg-deb -c "$work"/first/*.deb | awk '{ print $6 }' >"$work/contents"
	cat "$work/contents"
	for path in etc/cistern/cistern.conf etc/logrotate.d/cistern usr/sbin/cisternd \
		usr/bin/cistern usr/share/man/man1/cistern.1.gz \
		usr/share/bash-completion/completions/cistern \
		usr/lib/sysusers.d/cistern.conf usr/lib/tmpfiles.d/cistern.conf \
		usr/share/doc/cistern/README.Debian usr/share/doc/cistern/NEWS.md.gz \
		usr/share/doc/cistern/examples/cistern.conf \
		usr/share/doc/cistern/examples/cluster/haproxy.cfg \
		usr/share/man/man7/cistern-scaling.7.gz \
		usr/share/man/man5/cistern-spool.5.gz usr/share/man/man5/cistern.conf.5.gz \
		usr/share/man/man8/cisternd.8.gz; do
		grep -q -x "./$path" "$work/contents" || { echo "missing: $path"; return 1; }
	done
	for unit in cisternd.service cisternd.socket; do
		grep -q -E "^\./(usr/)?lib/systemd/system/$unit\$" "$work/contents" ||
			{ echo "missing: $unit"; return 1; }
	done
	dpkg-deb -I "$work"/first/*.deb conffiles | sort | tr '\n' ' ' |
		grep -x '/etc/cistern/cistern.conf /etc/logrotate.d/cistern '
}

# ---------------------------------------------------------------- a clean Debian

# The mirror that apt has this release from, and the keys for it
mirror_find() {
	# shellcheck disable=SC2016 # apt's dollars
	apt-get indextargets --format '$(CREATED_BY) $(CODENAME) $(COMPONENT) $(REPO_URI)' |
		awk -v suite="$suite" '$1 == "Packages" && $2 == suite && $3 == "main" {
			print $4; exit }'
}

debian_make() {
	eval "$(apt-config shell proxy Acquire::http::Proxy)"
	[ -z "${proxy-}" ] || export http_proxy="$proxy"
	unshare --mount --pid --fork --kill-child \
		debootstrap --variant=minbase "$suite" "$root" "$mirror" || return
	{
		[ -z "${proxy-}" ] || echo "Acquire::http::Proxy \"$proxy\";"
		# It is thrown away: nothing has to survive a power cut.
		echo 'Dpkg::Options { "--force-unsafe-io"; "--force-confold"; };'
		echo 'Apt::Install-Recommends "false";'
		echo 'Acquire::Languages "none";'
	} >"$root/etc/apt/apt.conf.d/99test"
	mkdir "$root/packages" && cp -r "$work/first" "$work/later" "$root/packages" &&
		cp "$work/build/source/debian/tests/smoke" "$root/packages"
}

# inside COMMAND...: in the other root, with processes of its own
inside() {
	unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" \
		chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

# Everything that the package depends on, so that what it brings itself can be told.
dependencies_install() {
	depends=$(dpkg-deb -f "$work"/first/*.deb Pre-Depends Depends | sed 's/^[A-Za-z-]*: //' |
		paste -s -d ,)
	inside apt-get -q update && inside apt-get -q -y satisfy "$depends" &&
		files >"$work/files.before"
}

# All files but those that every use of apt and dpkg changes
files() {
	(cd "$root" && find . -xdev \( -path ./proc -o -path ./packages -o -path ./tmp \
		-o -path ./var/cache -o -path ./var/lib/apt -o -path ./var/log/apt \
		-o -path ./run/systemd -o -name '*-old' -o -path './etc/*-' \
		-o -path ./etc/.pwd.lock \) -prune -o -print | sort)
}

install_package() {
	inside sh -c "apt-get -q -y install /packages/$1/*.deb"
}

# ---------------------------------------------------------------- in its life

user_and_directories() {
	inside sh -c 'getent passwd cistern
		stat -c "%n %U:%G %a" /var/lib/cistern /var/spool/cistern /var/log/cistern' |
		tee "$work/stat"
	[ "$(sed -n '2,$s/^[^ ]* //p' "$work/stat" | sort -u)" = 'cistern:cistern 750' ] &&
		grep '^cistern:x:[1-9][0-9]\{0,2\}:.*:/var/lib/cistern:/usr/sbin/nologin$' \
			"$work/stat"
}

enabled() {
	inside systemctl is-enabled cisternd.service || return
	! inside systemctl is-enabled cisternd.socket || return
	inside systemd-analyze verify --man=no cisternd.service cisternd.socket >"$work/verify" 2>&1
	! grep cisternd "$work/verify"
}

# The package's own test, with a network of its own
smoke() {
	# shellcheck disable=SC2016 # the inner shell's
	unshare --net sh -c 'ip link set lo up && exec "$@"' sh \
		unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" \
		chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		LC_ALL=C.UTF-8 /packages/smoke
}

messages() {
	find "$root/var/spool/cistern/new" -type f | wc -l
}

# An administrator's change stays; a file that nobody has changed is the new one.
upgrade() {
	echo 'max_message_size = "1M";' >>"$root/etc/cistern/cistern.conf"
	cp "$root/etc/cistern/cistern.conf" "$work/changed.conf"
	install_package later || return
	inside dpkg -s cistern | grep '^Version:.*+later$' &&
		cmp "$root/etc/cistern/cistern.conf" "$work/changed.conf" &&
		grep 'A later version' "$root/etc/cistern/cistern.conf.dpkg-dist" &&
		grep 'A later version' "$root/etc/logrotate.d/cistern" &&
		inside cisternd -T | grep '1048576\|1M' && [ "$(messages)" -eq 2 ]
}

remove() {
	echo log >"$root/var/log/cistern/cistern.log"
	inside apt-get -q -y remove cistern || return
	! [ -e "$root/usr/sbin/cisternd" ] && [ "$(messages)" -eq 4 ] &&
		cmp "$root/etc/cistern/cistern.conf" "$work/changed.conf" &&
		[ -e "$root/var/log/cistern/cistern.log" ]
}

# Messages stay, and purging says so; all else goes.
purge() {
	inside apt-get -q -y purge cistern >"$work/purge" 2>&1 || { cat "$work/purge"; return 1; }
	grep '^cistern: /var/spool/cistern is left with 4 files' "$work/purge" || return
	files >"$work/files.after"
	comm -13 "$work/files.before" "$work/files.after" | sort >"$work/left"
	cat "$work/left"
	[ "$(grep -c -E '^\./var/spool/cistern/new/[^/]+\.main\.[^/]+$' "$work/left")" -eq 4 ] &&
		! grep -v '^\./var/spool/cistern\(/new\(/[^/]*\)\?\)\?$' "$work/left"
}

# Without messages nothing stays.
purge_unused() {
	rm -r "$root/var/spool/cistern"
	install_package first && inside apt-get -q -y purge cistern || return
	files >"$work/files.after"
	! comm -13 "$work/files.before" "$work/files.after" | grep .
}

# ---------------------------------------------------------------- from here on

[ -r /etc/debian_version ] || skip_all 'this is not Debian'
[ "$(id -u)" -eq 0 ] || skip_all 'not root: neither debootstrap nor another root'
suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
[ -n "$suite" ] || skip_all '/etc/os-release has no VERSION_CODENAME'
[ -r "${RELEASE-}" ] || skip_all 'there is no release: make check-package makes one'
# shellcheck disable=SC2086,SC2154 # a list of words, from common.sh
packages_install $packages_build check libsubunit-dev debhelper debootstrap dpkg-dev \
	fakeroot iproute2 lintian systemd util-linux xz-utils ||
	skip_all 'debhelper, debootstrap or lintian cannot be installed'
unshare --mount --pid --net --fork true 2>/dev/null ||
	skip_all 'namespaces cannot be made (a container without CAP_SYS_ADMIN)'
mirror=$(mirror_find)
[ -n "$mirror" ] || skip_all "apt has no mirror of $suite"

work=$(mktemp -d "${TMPDIR:-/tmp}/cistern-package.XXXXXX") || exit 1
trap 'cd / && rm -rf --one-file-system "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$work"
root=$work/root
umask 022
unset MAKEFLAGS MFLAGS MAKELEVEL CFLAGS srcdir SOURCE_DATE_EPOCH
mkdir "$work/build" "$work/build/source" &&
	tar -xf "$RELEASE" -C "$work/build/source" --strip-components=1 || exit 1

check 'the release builds as packages, source and binary, with their unit tests' \
	package_build || stop
check 'lintian has neither errors nor warnings, and nothing is overridden' lintian_is_silent
check 'all is in the package, and /etc is the administrators'\''' package_has_all
check 'a later version builds' package_build_later || stop
check "debootstrap makes a clean $suite" debian_make || stop
check 'what it depends on can be installed there' dependencies_install || stop
check 'it installs' install_package first || stop
check 'the user and the directories are there' user_and_directories
check 'the service is enabled, the socket is not, and systemd understands both' enabled
check 'as installed it takes messages' smoke
check 'an upgrade keeps what was changed, and the messages' upgrade || stop
check 'the later version takes messages, too' smoke
check 'removing keeps configuration, log and messages' remove
check 'purging leaves the messages and nothing else, and says so' purge
check 'purging leaves nothing where there are no messages' purge_unused
echo "1..$number"
