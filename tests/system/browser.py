"""browser: Chromium without a window, spoken to by its DevTools protocol over a pipe."""

import json
import os
import select
import shutil
import subprocess
import time


def find():
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page of it.  What goes wrong in it is in self.errors."""

    def __init__(self, directory):
        to_child, self.out = os.pipe()
        self.into, from_child = os.pipe()
        command = [find(), "--headless", "--no-sandbox", "--disable-gpu",
                   "--disable-background-networking", "--disable-component-update",
                   "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
                   "--remote-debugging-pipe",
                   "--user-data-dir=" + os.path.join(directory, "browser"), "about:blank"]

        def descriptors():
            # It reads from 3 and writes to 4.
            a, b = os.dup(to_child), os.dup(from_child)
            os.dup2(a, 3)
            os.dup2(b, 4)
        self.process = subprocess.Popen(command, preexec_fn=descriptors, close_fds=False,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self.buffer, self.number, self.session, self.errors = b"", 0, None, []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = [t for t in targets if t["type"] == "page"][0]["targetId"]
        self.session = self.call("Target.attachToTarget",
                                 {"targetId": page, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")

    def receive(self, until):
        while b"\0" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.into], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            more = os.read(self.into, 1 << 20)
            if not more:
                raise EOFError("the browser has ended")
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, params=None, patience=60):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params or {}}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + patience
        while True:
            said = self.receive(until)
            if said.get("id") == self.number:
                if "error" in said:
                    raise RuntimeError(said["error"])
                return said["result"]
            what = said.get("method")
            if what == "Runtime.exceptionThrown" or what == "Log.entryAdded" or (
                    what == "Runtime.consoleAPICalled"):
                self.errors.append(json.dumps(said["params"])[:400])

    def go(self, url):
        self.call("Page.navigate", {"url": url})
        self.wait('document.readyState === "complete" && location.href !== "about:blank"')

    def run(self, script):
        result = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True})
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, script, patience=30):
        until = time.monotonic() + patience
        while not self.run(script):
            if time.monotonic() > until:
                raise TimeoutError(script)
            time.sleep(0.05)

    def end(self):
        os.close(self.out)
        self.process.terminate()
        self.process.wait()
        os.close(self.into)
