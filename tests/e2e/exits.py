"""How pods end: their containers' exit codes, and their logs to the last line."""

import json
import subprocess
import tempfile
import threading
import time
from pathlib import Path


class Exits:
    """Watches the pods of a release from `with` on. A container that the kubelet had to kill has not the exit code 0."""

    def __init__(self, release):
        self.release = release
        self.codes, self.logs, self.names = {}, {}, {}

    def __enter__(self):
        selector = f"app.kubernetes.io/name=larder,app.kubernetes.io/instance={self.release.name}"
        command = ["kubectl", "-n", self.release.namespace, "get", "pods", "-l", selector, "-w", "-o", "json"]
        self.watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self):
        decoder, text = json.JSONDecoder(), ""
        for line in self.watch.stdout:
            text += line
            # Objects follow each other; each ends with a brace in the first column.
            if line.rstrip() == "}":
                self._look(decoder.decode(text))
                text = ""

    def _look(self, pod):
        uid = pod["metadata"]["uid"]
        for status in pod["status"].get("containerStatuses", []):
            if "running" in status["state"] and uid not in self.logs:
                self._follow(uid, pod["metadata"]["name"])
            if ended := status["state"].get("terminated"):
                self.codes[uid] = ended["exitCode"]

    def _follow(self, uid, name):
        command = ["kubectl", "-n", self.release.namespace, "logs", "-f", name]
        logs = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.names[uid] = name
        self.logs[uid] = lines = []
        threading.Thread(target=lambda: lines.extend(logs.stdout), daemon=True).start()

    def ended_well(self, at_least):
        """At least so many ended, all by themselves and with nothing left to hand over."""
        end = time.monotonic() + 20
        while len(self.codes) < at_least and time.monotonic() < end:
            time.sleep(0.2)
        assert len(self.codes) >= at_least, self.codes
        for uid, code in self.codes.items():
            tail = "".join(self.logs[uid][-20:])
            assert code == 0, f"{self.names[uid]} ended with {code}:\n{tail}"
            dropped = [line for line in self.logs[uid] if '"dropped"' in line]
            assert not dropped, f"{self.names[uid]}: {dropped}"

    def complaints(self):
        """The warnings and errors of all pods, also of those that are gone."""
        for uid, lines in self.logs.items():
            yield from (f"{self.names[uid]}: {line}" for line in lines if '"level":"WARN"' in line or '"level":"ERROR"' in line)

    def __exit__(self, failed, *_):
        self.watch.kill()
        if failed:
            print(*self.complaints())
            folder = Path(tempfile.mkdtemp(prefix="larder-e2e-logs-"))
            for uid, lines in self.logs.items():
                (folder / self.names[uid]).write_text("".join(lines))
            print(f"the pods' logs are in {folder}")
