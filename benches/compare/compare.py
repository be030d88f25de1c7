"""The comparison: servers on one core, one client after the other on the rest, and tables of what each costs both sides.

Every client is a process of its own (a driver), so that its CPU time is its own. In each round every client of a cell has one
window; ratios are taken round by round and their median is printed. Anything that goes wrong ends the run without a table.
"""

import argparse
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BIN = ROOT / "target/compare/bin"
TOKEN = "larder_compare_0123456789abcdef0123456789abcdef"
KEYS = 10_000
# Limits that are asked at every call and never reached.
RATE = 100_000_000
WARM_UP_MS = 150
START_LIMIT_S = 20
DRIVER_LIMIT_S = 60

# Client -> what it is and how it calls. The order is that of the tables.
CLIENTS = {
    "redis-benchmark": "redis-benchmark -P, one window after the other",
    "redis": "`redis` crate, multiplexed",
    "larder": "Larder's client",
    "tonic-pipeline": "tonic, Pipeline by hand, one window after the other",
    "larder-unary": "Larder's client, unary",
    "tonic": "tonic, unary",
    "grpc-go": "grpc-go, unary",
    "grpcio": "grpcio (Python), unary",
}
OF_REDIS = ("redis-benchmark", "redis")
# What is promised: Larder's pipeline against Redis, each by a client that sends one window after the other, and each by one
# that shares connections between callers.
PAIRS = (("tonic-pipeline", "redis-benchmark"), ("larder", "redis"))
AT_LEAST = 1.2


@dataclass(frozen=True)
class Cell:
    verb: str
    bytes: int
    connections: int
    window: int

    def __str__(self):
        return f"{self.verb.capitalize()} {self.bytes} B, {self.connections} connections x {self.window} in flight"


class Server:
    """A process on the servers' core."""

    def __init__(self, command, log, cores):
        self.log = log
        with open(log, "w") as file:
            self.process = subprocess.Popen(pinned(cores, command), stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.pid, self.address, self.addresses = self.process.pid, None, None

    def wait_until(self, ready):
        due = time.monotonic() + START_LIMIT_S
        while not ready():
            if self.process.poll() is not None or time.monotonic() > due:
                raise SystemExit(f"compare: a server does not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.01)

    def cpu(self):
        """CPU time of all its threads, in seconds."""
        files = pathlib.Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9

    def end(self):
        self.process.kill()
        self.process.wait()


def main():
    options = parse()
    servers_core, clients_cores = split_cores(options)
    clients = [client for client in CLIENTS if available(client) and (not options.clients or client in options.clients)]
    combinations = itertools.product(options.verbs, options.bytes, options.connections, options.windows)
    cells = [Cell(*combination) for combination in combinations]
    with tempfile.TemporaryDirectory(prefix="larder-compare-") as folder:
        folder = pathlib.Path(folder)
        servers = {"larder": start_larder(folder, servers_core, options)}
        try:
            if any(client in OF_REDIS for client in clients):
                servers["redis"] = start_redis(folder, servers_core)
            runner = Runner(servers, clients_cores, options)
            for bytes in options.bytes:
                runner.fill(bytes)
            print(f"load average at the start: {pathlib.Path('/proc/loadavg').read_text().strip()}")
            rows = {cell: {client: [] for client in clients} for cell in cells}
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
                for cell, client in itertools.product(cells, clients):
                    rows[cell][client].append(runner.measure(client, cell))
        finally:
            for server in servers.values():
                server.end()
    report(rows)


def parse():
    parser = argparse.ArgumentParser(prog="benches/compare/run", description=__doc__.split("\n")[0])
    words = lambda text: text.split(",")
    numbers = lambda text: [int(word) for word in text.split(",")]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window-ms", type=int, default=500, help="of each client, each cell, each round")
    parser.add_argument("--verbs", type=words, default=["get", "store"])
    parser.add_argument("--bytes", type=numbers, default=[64, 1024], help="sizes of the values")
    parser.add_argument("--connections", type=numbers, default=[4, 16])
    parser.add_argument("--windows", type=numbers, default=[16, 64], help="calls in flight on each connection")
    parser.add_argument("--clients", type=words, default=[], help="only these: " + ", ".join(CLIENTS))
    parser.add_argument("--larder", default=str(BIN / "larder"), help="another build of the server")
    return parser.parse_args()


def split_cores(options):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None, None
    return {cores[0]}, set(cores[1:])


def pinned(cores, command):
    command = [str(word) for word in command]
    return command if cores is None else ["taskset", "-c", ",".join(map(str, sorted(cores))), *command]


def available(client):
    """What is missing was said by `run`."""
    if client in OF_REDIS and not (shutil.which("redis-server") and shutil.which("redis-benchmark")):
        return False
    return client != "grpc-go" or (BIN / "grpc-go").exists()


def start_larder(folder, cores, options, more=()):
    """With every layer on: token, limits of server and account, quota, metrics, deadlines; the access log off by its level."""
    hashed = "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest()
    limits = {"max_cache_keys": 1_000_000, "max_bytes": 1 << 30, "requests_per_second": RATE, "burst": RATE // 100}
    account = {"id": "compare", "tokens": [{"hash": hashed}], "guaranteed_bytes": 64 << 20, **limits}
    (folder / "accounts.json").write_text(json.dumps({"accounts": [account]}))
    ready = folder / "ready.json"
    command = [options.larder, "serve", "--accounts", folder / "accounts.json", "--ready-file", ready, "--workers", "1"]
    command += ["--capacity", "1GiB", "--requests-per-second", RATE, "--burst", RATE // 100]
    for port in ("listen", "health-listen", "admin-listen"):
        command += [f"--{port}", "127.0.0.1:0"]
    server = Server([*command, *more], folder / "larder.log", cores)
    server.wait_until(ready.exists)
    server.addresses = json.loads(ready.read_text())
    server.address = server.addresses["grpc"]
    return server


def start_redis(folder, cores):
    """Without persistence, and one thread that carries calls out, as Larder has one worker."""
    socket = folder / "redis.sock"
    port = free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--unixsocket", socket]
    server = Server(command, folder / "redis.log", cores)
    server.wait_until(socket.exists)
    server.address = f"127.0.0.1:{port}"
    return server


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Runner:
    def __init__(self, servers, cores, options):
        self.servers, self.cores, self.window_ms = servers, cores, options.window_ms
        # Requests that redis-benchmark is told to make: what it did in a second before, times the window.
        self.rates = {}

    def fill(self, bytes):
        """Every key once, in either server."""
        for client, name in (("larder", "larder"), ("redis", "redis")):
            if name in self.servers:
                self.drive(client, Cell("fill", bytes, 1, 1))

    def measure(self, client, cell):
        seen = self.redis_benchmark(cell) if client == "redis-benchmark" else self.drive(client, cell)
        if not seen["items"] or seen["server"] <= 0:
            raise SystemExit(f"compare: {client} did nothing: {seen}")
        return seen

    def drive(self, client, cell):
        server = self.servers["redis" if client in OF_REDIS else "larder"]
        program = {
            "redis": [BIN / "redis"],
            "grpc-go": [BIN / "grpc-go"],
            "grpcio": [BIN / "python", pathlib.Path(__file__).parent / "grpcio_driver.py"],
        }.get(client, [BIN / "client", "drive", client])
        words = {"address": server.address, "servers": server.pid, "keys": KEYS, "warm_up_ms": WARM_UP_MS, "window_ms": self.window_ms}
        words |= {"verb": cell.verb, "bytes": cell.bytes, "connections": cell.connections, "window": cell.window}
        command = pinned(self.cores, [*program, *(f"{name}={value}" for name, value in words.items())])
        environment = os.environ | {"LARDER_TOKEN": TOKEN}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DRIVER_LIMIT_S)
        if done.returncode != 0:
            raise SystemExit(f"compare: {client}, {cell}: {done.stderr}")
        return json.loads(done.stdout)

    def redis_benchmark(self, cell):
        """From its start to its end: it says nothing in between. The same keys, chosen at random."""
        server = self.servers["redis"]
        host, port = server.address.split(":")
        asked = ["get", f"c/{cell.bytes}/__rand_int__"] if cell.verb == "get" else ["set", f"c/{cell.bytes}/__rand_int__", "x" * cell.bytes]
        requests = int(max(self.rates.get(cell, 100_000) * self.window_ms / 1e3, 1_000))
        command = ["redis-benchmark", "-h", host, "-p", port, "-q", "-n", requests, "-r", KEYS, "-P", cell.window, "-c", cell.connections]
        began, cpu = time.monotonic(), server.cpu()
        process = subprocess.Popen(pinned(self.cores, command + asked), stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        took, cpu = time.monotonic() - began, server.cpu() - cpu
        if status != 0:
            raise SystemExit(f"compare: redis-benchmark ended with {status}")
        known, self.rates[cell] = cell in self.rates, requests / took
        if not known:
            return self.redis_benchmark(cell)
        return {"items": requests, "seconds": took, "client": used.ru_utime + used.ru_stime, "server": cpu}


def report(rows):
    per_server = lambda seen: seen["items"] / seen["server"]
    per_client = lambda seen: seen["items"] / seen["client"]
    for cell, clients in rows.items():
        base = next((client for client in clients if client in ("redis-benchmark", "larder")), None)
        print(f"\n{cell}\n\n| client | items/s | per server CPU s | spread | x of {base} | per client CPU s | client CPU us | x of tonic |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|")
        for client, seen in clients.items():
            servers = [per_server(one) for one in seen]
            spread = (max(servers) - min(servers)) / statistics.median(servers) * 100
            of_base = ratio(seen, clients[base], per_server)
            of_tonic = ratio(clients["tonic"], seen, per_client) if clients.get("tonic") else float("nan")
            mine = statistics.median(map(per_client, seen))
            print(
                f"| {CLIENTS[client]} | {statistics.median(one['items'] / one['seconds'] for one in seen):,.0f} "
                f"| {statistics.median(servers):,.0f} | {spread:.0f} % | x{of_base:.2f} | {mine:,.0f} | {1e6 / mine:.2f} | x{of_tonic:.2f} |"
            )
    print()
    for (ours, theirs), (cell, clients) in itertools.product(PAIRS, rows.items()):
        if cell.verb == "get" and clients.get(ours) and clients.get(theirs):
            found = ratio(clients[ours], clients[theirs], per_server)
            verdict = "pass" if found >= AT_LEAST else "miss"
            print(f"    {verdict}  {cell}: {ours} against {theirs}, per server CPU s: x{found:.2f} (at least x{AT_LEAST})")
    for cell, clients in rows.items():
        if clients.get("larder") and clients.get("tonic"):
            found = ratio(clients["tonic"], clients["larder"], per_client)
            verdict = "pass" if found <= 0.5 else "miss"
            print(f"    {verdict}  {cell}: client CPU per call against tonic's: x{found:.2f} (at most x0.5)")


def ratio(these, those, of):
    return statistics.median(of(this) / of(that) for this, that in zip(these, those, strict=True))


if __name__ == "__main__":
    main()
