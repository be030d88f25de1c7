"""A `larder dev` of the test's own: real replicas, each a process."""

import json
import subprocess

from support.program import Program
from support.replica import BIN, CLEAN
from support.waiting import until

TOKEN = "larder_dev_demo_read_and_write"


class Dev(Program):
    """So many replicas that serve, on free ports; killed with all of them at the end."""

    def __init__(self, folder, replicas):
        self.folder = folder
        ready = folder / "ready.json"
        self.environment = {name: value for name, value in CLEAN.items() if not name.startswith("LARDER_")}
        self.environment["XDG_RUNTIME_DIR"] = str(folder)
        self.log_file = folder / "log"
        words = [BIN, "dev", "--base-port=0", f"--replicas={replicas}", "--capacity=256MiB", f"--ready-file={ready}"]
        with open(self.log_file, "w") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)

        def serves():
            assert self.process.poll() is None, self.log_file.read_text()
            return ready.exists()

        until("all replicas serve", serves, 30)
        self.base_port = json.loads(ready.read_text())["base_port"]

    def address(self, number):
        """Where the replica of this number is, if there is one."""
        return f"127.0.0.1:{self.base_port + 10 * number}"

    def run(self, *words):
        """Gives it a command, which must succeed."""
        command = [BIN, "dev", *map(str, words), f"--base-port={self.base_port}"]
        said = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert said.returncode == 0, f"{said.stdout}{said.stderr}{self.log_file.read_text()}"
        return said.stdout
