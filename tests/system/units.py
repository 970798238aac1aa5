#!/usr/bin/env python3
"""units: what systemd itself thinks of the files that are installed for it: the service
and its socket, the user, the directories.
"""

import grp
import os
import pwd
import re
import shutil
import subprocess
import sys

import manager  # noqa: F401 (finds storage)
from storage import Scratch, Tap, skip_all

GENERATED = os.environ.get("GENERATED", "generated")
MOST_EXPOSED = 16  # tenths, of systemd-analyze security


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=False,
                          env=dict(os.environ, LC_ALL="C.UTF-8", SYSTEMD_COLORS="0"))


def units(tap, scratch):
    paths = []
    for name in ("cisternd.service", "cisternd.socket"):
        with open(os.path.join(GENERATED, "systemd", name), encoding="utf-8") as file:
            text = file.read()
        tap.result(re.search("@[a-z]+@", text) is None, "%s: all is filled in" % name, text)
        # It is not installed: any program that is will do.
        text = re.sub(r"=/\S*/cisternd ", "=/bin/true ", text)
        paths.append(os.path.join(scratch, name))
        with open(paths[-1], "w", encoding="utf-8") as file:
            file.write(text)
    result = run("systemd-analyze", "security", "--offline=true", "--no-pager",
                 "--threshold=%d" % MOST_EXPOSED, paths[0])
    tap.note((result.stdout.strip().splitlines() or [result.stderr])[-1])
    tap.result(result.returncode == 0, "exposure of at most %.1f" % (MOST_EXPOSED / 10),
               result.stdout + result.stderr)
    result = run("systemd-analyze", "verify", "--man=no", *paths)
    complaints = [line for line in result.stderr.splitlines() if "cisternd" in line]
    tap.result(not complaints, "systemd understands the units", "\n".join(complaints))


def directories(tap, scratch):
    """The user is made, and then the directories are that user's."""
    what = "the user and the directories can be made"
    if os.geteuid() != 0:
        return tap.skip(what, "not root")
    for program in ("systemd-sysusers", "systemd-tmpfiles"):
        if shutil.which(program) is None:
            return tap.skip(what, program + " is not installed")
    root = os.path.join(scratch, "root")
    os.makedirs(os.path.join(root, "etc"))
    made = run("systemd-sysusers", "--root=" + root,
               os.path.abspath(os.path.join(GENERATED, "sysusers.d", "cistern.conf")))
    path = os.path.abspath(os.path.join(GENERATED, "tmpfiles.d", "cistern.conf"))
    with open(path, encoding="utf-8") as file:
        wanted = re.findall(r"^d (\S+) (\d+) cistern cistern", file.read(), re.M)
    done = run("systemd-tmpfiles", "--root=" + root, "--create", path)
    with open(os.path.join(root, "etc", "passwd"), encoding="utf-8") as file:
        user = int(re.search(r"^cistern:[^:]*:(\d+):", file.read(), re.M).group(1))
    stats = [os.stat(root + directory) for directory, _ in wanted]
    tap.result(made.returncode == done.returncode == 0 and len(wanted) == 4 and
               all(st.st_uid == user and st.st_mode & 0o7777 == int(mode, 8)
                   for st, (_, mode) in zip(stats, wanted)), what,
               made.stderr + done.stderr + repr(stats))
    return None


def rotation(tap, scratch):
    if shutil.which("logrotate") is None:
        return tap.skip("logrotate reads its file", "logrotate is not installed")
    # This machine need not have the user; what is looked at is the file.
    user, group = pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name
    path = os.path.join(scratch, "logrotate")
    with open(os.path.join(GENERATED, "logrotate.d", "cistern"), encoding="ascii") as file:
        text = file.read().replace("cistern cistern", "%s %s" % (user, group))
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, 0o644)
    result = run("logrotate", "--debug", path)
    return tap.result("error" not in result.stderr, "logrotate reads its file", result.stderr)


def main():
    tap = Tap()
    if shutil.which("systemd-analyze") is None:
        skip_all("systemd-analyze is not installed (Debian: systemd)")
    os.umask(0o022)  # systemd complains of units that anybody may write
    with Scratch() as scratch:
        units(tap, scratch)
        directories(tap, scratch)
        rotation(tap, scratch)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
