"""One real Jaeger (2.x), its traces in memory, on free ports of the loopback."""

import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request

from support.program import Program
from support.waiting import until

# The program: named, or on the path. None: there is none.
BIN = os.environ.get("JAEGER_BIN") or shutil.which("jaeger")

CONFIG = """
service:
  extensions: [jaeger_storage, jaeger_query]
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
extensions:
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 1000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "127.0.0.1:{http}"}}
    grpc: {{endpoint: "127.0.0.1:{grpc}"}}
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{otlp}"}}}}}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""


def free_ports(count):
    """Ports that were free a moment ago: Jaeger cannot say which it chose."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Jaeger(Program):
    def __init__(self, folder):
        self.http, grpc, self.otlp = free_ports(3)
        config = folder / "jaeger.yaml"
        config.write_text(CONFIG.format(http=self.http, grpc=grpc, otlp=self.otlp))
        self.log_file = folder / "jaeger.log"
        with open(self.log_file, "w") as log:
            self.process = subprocess.Popen([BIN, "--config", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until("Jaeger answers", lambda: self.alive() and self.ask("services") is not None, 30)
        except AssertionError:
            self.close()
            raise

    def alive(self):
        if self.process.poll() is not None:
            raise AssertionError(f"jaeger exited with {self.process.returncode}:\n{self.log_file.read_text()[-4000:]}")
        return True

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.otlp}"

    def ask(self, path):
        """What the query API says; none: nothing, or not yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/{path}", timeout=10) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            return None

    def spans(self, trace_id, count):
        """The spans of a trace, once there are so many, each with its `tags` and the tags of its `process` as dictionaries."""

        def all_of_them():
            found = self.ask(f"traces/{trace_id}")
            trace = found["data"][0] if found and found["data"] else {"spans": []}
            return trace if len(trace["spans"]) >= count else None

        trace = until(f"{count} spans of {trace_id} are in Jaeger", all_of_them, 30)
        tags = lambda pairs: {pair["key"]: pair["value"] for pair in pairs}  # noqa: E731
        for span in trace["spans"]:
            span["tags"] = tags(span["tags"])
            process = trace["processes"][span["processID"]]
            span["service"], span["process"] = process["serviceName"], tags(process["tags"])
            span["parents"] = [reference["spanID"] for reference in span["references"]]
        return sorted(trace["spans"], key=lambda span: span["startTime"])
