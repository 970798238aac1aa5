# shellcheck shell=sh disable=SC2154
# common: what script/run and script/test share.  Speaks on standard error only.
#
# The script that includes it has set `top`, the project's directory, and `me`.

say() {
	echo "$me: $*" >&2
}

# fail CODE TEXT...
fail() {
	code=$1
	shift
	say "$*"
	exit "$code"
}

processors() {
	nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1
}

# Those of the named Debian packages that are not installed.
packages_missing() {
	for package in "$@"; do
		case $(dpkg-query -W -f=' ${db:Status-Status} ' "$package" 2>/dev/null) in
		*' installed '*) ;;
		*) printf '%s ' "$package" ;;
		esac
	done
}

# apt_get ARGUMENT...: apt-get, as root, without questions.
apt_get() {
	set -- apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"
	if [ "$(id -u)" -eq 0 ]; then
		set -- env DEBIAN_FRONTEND=noninteractive "$@"
	elif ! command -v sudo >/dev/null 2>&1; then
		echo 'neither root nor sudo'
		return 1
	elif [ -t 2 ]; then
		set -- sudo env DEBIAN_FRONTEND=noninteractive "$@"
	else
		set -- sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
	fi
	"$@"
}

# packages_install PACKAGE...: installs what is missing of them, where there is
# apt-get.  The package lists are only fetched when those at hand do not do.
packages_install() {
	command -v apt-get >/dev/null 2>&1 || return 1
	missing=$(packages_missing "$@")
	[ -n "$missing" ] || return 0
	say "installing $missing"
	mkdir -p "$top/build"
	# shellcheck disable=SC2086 # a list of words
	apt_get install --no-install-recommends $missing >"$top/build/apt.log" 2>&1 ||
		{ quietly "$top/build/apt.log" apt_get update &&
			quietly "$top/build/apt.log" \
				apt_get install --no-install-recommends $missing; }
}

packages_build='autoconf automake gcc libc6-dev libconfig-dev libevent-dev libjansson-dev libnats-dev librdkafka-dev libssl-dev make pkg-config'

# Everything that building takes, or exit 69 with what is missing.
require_build() {
	# shellcheck disable=SC2086
	packages_install $packages_build || :
	missing=
	for tool in autoreconf automake make pkg-config; do
		command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
	done
	command -v "${CC:-cc}" >/dev/null 2>&1 || missing="$missing ${CC:-cc}"
	if command -v pkg-config >/dev/null 2>&1; then
		for library in 'libevent_core >= 2.1.12' 'libevent_extra >= 2.1.12' \
			'libevent_pthreads >= 2.1.12' 'libconfig >= 1.5'; do
			pkg-config --exists "$library" || missing="$missing ${library%% *}"
		done
	fi
	[ -z "$missing" ] && return
	cat >&2 <<-END
		$me: missing:$missing
		Building takes a C compiler, make, autoconf, automake, pkg-config, libevent 2.1.12
		and libconfig 1.5, for TLS OpenSSL 1.1.1, for cistern top jansson, for Kafka librdkafka, for
		NATS libnats 3.4; the tests take
		Check 0.15 as well:
		  Debian  apt-get install $packages_build check libsubunit-dev
		  Fedora  dnf install autoconf automake gcc make pkgconf-pkg-config libevent-devel libconfig-devel openssl-devel jansson-devel cnats-devel librdkafka-devel check-devel
		  Arch    pacman -S base-devel libevent libconfig openssl jansson librdkafka check
		  Alpine  apk add build-base autoconf automake pkgconf linux-headers libevent-dev libconfig-dev openssl-dev jansson-dev librdkafka-dev check-dev
		  macOS   brew install autoconf automake pkg-config libevent libconfig openssl jansson librdkafka check
	END
	exit 69
}

# Makes configure when there is none, or an old one.
require_configure() {
	if [ -e "$top/config.status" ]; then
		fail 78 "the source directory is configured for a build of its own;" \
			"'make distclean' there first"
	fi
	if [ -x "$top/configure" ] && [ -f "$top/Makefile.in" ] &&
		[ -f "$top/build-config.h.in" ] && [ -f "$top/build-aux/tap-driver.sh" ] &&
		[ -z "$(find "$top/configure.ac" "$top/m4" -newer "$top/configure")" ] &&
		[ -z "$(find "$top/Makefile.am" -newer "$top/Makefile.in")" ]; then
		return 0
	fi
	say 'making configure'
	mkdir -p "$top/build"
	quietly "$top/build/bootstrap.log" "$top/bootstrap" --force
}

# quietly LOG COMMAND...: its output goes to LOG, and is shown when it fails.
quietly() {
	log=$1
	shift
	"$@" >"$log" 2>&1 </dev/null && return
	code=$?
	tail -n 60 "$log" >&2
	say "failed ($code): $*"
	return "$code"
}
