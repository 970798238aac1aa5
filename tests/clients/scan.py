#!/usr/bin/env python3
"""scan: testssl.sh against a listener with TLS as it is by default.  What it finds is not more
than what is written down here, each with its reason.

SCAN=full: all of its tests (minutes); else protocols, ciphers and weaknesses that take seconds.
"""

import json
import os
import subprocess
import sys

import kit
import peer
import storage

SETTINGS = kit.TLS + 'framing = "line"; idle_timeout = "30s"; deliver = "f"; ' \
    'sinks = {{ f = {{ type = "file"; path = "{directory}/f.json"; sync = false; }}; }};'
SCANS = {"quick": ["-p", "-s", "-f", "-H", "-I", "-R", "-C", "-W"], "full": []}
# By the beginning of an id: why it is no fault of the daemon's.
EXPECTED = (
    ("cert_revocation", "the test's certificate, which is its own authority"),
    ("OCSP_stapling", "there is no authority to ask"),
    ("grade_cap_reason", "the scanner of 3.2 and later: for the certificate"),
    ("engine_problem", "the scanner's own OpenSSL"),
)
VERSIONS = {"SSLv2": False, "SSLv3": False, "TLS1": False, "TLS1_1": False, "TLS1_2": True,
            "TLS1_3": True}
SEVERE = ("LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL")


def main():
    if not kit.need():
        storage.skip_all("built without TLS, or no openssl to make a certificate")
    tap = storage.Tap()
    program = kit.find(["testssl", "testssl.sh"], "testssl.sh")
    if isinstance(program, str):
        storage.skip_all(program)
    scan = os.environ.get("SCAN", "quick")
    with storage.Scratch() as directory:
        peer.certificate(directory, "server", "/CN=localhost", days="365")
        daemon = kit.start(directory, SETTINGS, True)
        path = os.path.join(directory, "scan.json")
        with open(os.path.join(directory, "scan.log"), "w", encoding="utf-8") as log:
            subprocess.run([program.path, "--quiet", "--warnings", "off", "--color", "0", "--nodns",
                            "none", "--add-ca", directory + "/server.pem", "--ip", "127.0.0.1",
                            "--jsonfile", path] + SCANS[scan] + ["localhost:%d" % daemon.port],
                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=program.env,
                           check=False, timeout=1200)
        with open(path, encoding="utf-8") as file:
            findings = json.load(file)
        known = [one for one in findings if one["severity"] in SEVERE and
                 one["id"].startswith(tuple(start for start, _ in EXPECTED))]
        ours = [one for one in findings if one["severity"] in SEVERE and one not in known]
        for one in known:
            tap.note("left out: %(id)s: %(severity)s: %(finding)s" % one)
        tap.result(not ours, "%d findings, none that is ours to mend" % len(findings),
                   "\n".join("%(id)s: %(severity)s: %(finding)s" % one for one in ours))
        by_id = {one["id"]: one["finding"] for one in findings}
        offered = {name: by_id[name].startswith("offered") for name in VERSIONS}
        tap.result(offered == VERSIONS, "TLS 1.2 and 1.3, and nothing older", str(offered))
        for name in ("overall_grade", "final_score"):
            if name in by_id:
                tap.note("%s: %s" % (name, by_id[name]))
        daemon.end(tap, "after the scan")
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
