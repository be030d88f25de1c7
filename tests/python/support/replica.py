"""One real `larder serve` process."""

import json
import os
import signal
import subprocess

import grpc

from support import accounts
from support.program import Program
from support.waiting import until

BIN = os.environ["LARDER_BIN"]
# The environment of the tests must not configure the replica, but for free ports on loopback.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("LARDER_", "OTEL_"))}
CLEAN |= {f"LARDER_{which}LISTEN": "127.0.0.1:0" for which in ("", "HEALTH_", "ADMIN_")}


class Replica(Program):
    """A process that serves. `folder` is its own; `flags` come after those that every test wants."""

    def __init__(self, folder, *flags, environment=None, everyone=accounts.EVERYONE, accounts_flags=None, wait=True):
        self.folder = folder
        self.accounts_file = folder / "accounts.json"
        self.ready_file = folder / "ready.json"
        self.log_file = folder / "log"
        accounts.write(self.accounts_file, everyone)
        source = accounts_flags or ["--accounts", self.accounts_file]
        command = [BIN, "serve", *source, "--ready-file", self.ready_file, *flags]
        with open(self.log_file, "w") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=CLEAN | (environment or {})
            )
        self.addresses = None
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"larder exited with {self.process.returncode}:\n{self.log()}")
            return self.ready_file.exists()

        until("the ready file is there", ready, 20)
        self.addresses = json.loads(self.ready_file.read_text())

    @property
    def target(self):
        return self.addresses["grpc"]

    @property
    def health_target(self):
        return self.addresses["health"]

    def port(self, which="grpc"):
        return int(self.addresses[which].rsplit(":", 1)[1])

    def log(self):
        return self.log_file.read_text(errors="replace")

    def complaints(self):
        """The log's warnings and errors."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["level"] in ("WARN", "ERROR")]

    def rss(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds):
        return self.process.wait(timeout=seconds)


def channel(replica, **options):
    """A stock channel of its own (no sharing of connections), with grpc's own retries off unless asked for."""
    settings = {"grpc.use_local_subchannel_pool": 1, "grpc.enable_retries": 0}
    settings |= {f"grpc.{name}": value for name, value in options.items()}
    return grpc.insecure_channel(replica.target, options=list(settings.items()))


def bearer(token, **more):
    """Metadata with a token, and more (`dry_run="1"` is `dry-run: 1`)."""
    return [("authorization", f"Bearer {token}")] + [(name.replace("_", "-"), value) for name, value in more.items()]
