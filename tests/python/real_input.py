"""Real files in and out again; see `tests/real_input`."""

import argparse
import os
import pathlib
import shutil
import subprocess
import threading
import time
from collections import deque

import grpc
import rpc_pb2
import rpc_pb2_grpc
from larder.v1 import cache_pb2, cache_pb2_grpc

from support.accounts import ALICE
from support.certificates import Authority, write_pair
from support.replica import BIN, CLEAN, Replica, bearer, channel

MIB = 1 << 20
# Of the contract: key and value together.
MAX_ENTRY_BYTES = 4 * MIB - 64 * 1024
# Every how-manieth file the sample takes.
SAMPLE = 25
# Calls that the stock client has in the air.
WINDOW = 64
# What the server may grow by while a dump is read: pages, windows and buffers of one stream. The data is at least 16 times
# as much, so a server that read ahead without limit would show.
MAX_GROWTH = 16 * MIB


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    try:
        run(options.folder, options.full)
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)


def run(folder, full):
    files = stage(folder / "in", full)
    authority = Authority()
    certificate, key = write_pair(folder / "tls", authority.issue())
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "replica").mkdir()
    flags = ["--tls-cert", certificate, "--tls-key", key, "--tutorial-api", "--capacity", "4GiB"]
    with Replica(folder / "replica", *flags) as replica:
        by_our_command(folder, files, replica)
        by_a_stock_client(folder, files, replica, authority)
        assert replica.process.poll() is None
    (folder / "slow").mkdir()
    slow_reader(folder / "slow", *((1024, 30) if full else (256, 5)))
    print("real input: passed")


# The files


def sources():
    """Where real files are; a minimal toolchain has no documentation."""
    cargo = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    found = {"registry": cargo / "registry/src", "documentation": pathlib.Path(sysroot) / "share/doc"}
    for name, root in found.items():
        if root.is_dir():
            yield name, root
        else:
            print(f"real input: there is no {name} on this machine")


def stage(root, full):
    """Links the files into one folder; their sizes by relative path."""
    sizes = {}
    for name, source in sources():
        paths = sorted(path for path in walk(source))
        for path in paths if full else paths[::SAMPLE]:
            relative = f"{name}/{path.relative_to(source)}"
            link(path, root / relative)
            sizes[relative] = path.stat().st_size
    assert len(sizes) >= (10_000 if full else 400), f"only {len(sizes)} real files were found"
    for relative, beyond in [("edge/largest", 0), ("edge/too-large", 1)]:
        size = MAX_ENTRY_BYTES - len(relative) + beyond
        (root / "edge").mkdir(exist_ok=True)
        (root / relative).write_bytes(os.urandom(size))
        sizes[relative] = size
    print(f"real input: {len(sizes)} files, {sum(sizes.values()) / MIB:.0f} MiB, the largest {max(sizes.values()) / MIB:.1f} MiB")
    return sizes


def walk(root):
    for folder, _, names in os.walk(root):
        for name in names:
            path = pathlib.Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def link(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def too_large(files):
    return {name for name, size in files.items() if len(name.encode()) + size > MAX_ENTRY_BYTES}


def told(what, count, size, seconds):
    print(f"  {what}: {count} files, {size / MIB:.0f} MiB in {seconds:.1f} s ({count / seconds:.0f}/s, {size / MIB / seconds:.0f} MiB/s)")


# By our command


def by_our_command(folder, files, replica):
    print("real input: larder load and larder dump, over TLS")
    environment = CLEAN | {
        "LARDER_TARGET": f"https://{replica.target}",
        "LARDER_TOKEN": ALICE,
        "LARDER_TLS_CA": str(folder / "ca.pem"),
    }
    expected = set(files) - too_large(files)
    size = sum(files[name] for name in expected)

    def larder(*words):
        began = time.monotonic()
        answer = subprocess.run([BIN, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr[-4000:]
        return answer.stderr + answer.stdout, time.monotonic() - began

    report, seconds = larder("load", folder / "in", "--skip-too-large")
    told("load", len(expected), size, seconds)
    for name in too_large(files):
        assert name in report, f"{name} is over the limit, and load does not name it"
    _, seconds = larder("dump", folder / "out")
    told("dump", len(expected), size, seconds)
    compare(folder, expected)
    print(f"  the same byte for byte; over the limit, named and the only ones missing: {len(too_large(files))}")
    shutil.rmtree(folder / "out")
    with secure(replica, (folder / "ca.pem").read_bytes()) as opened:
        list(cache_pb2_grpc.CacheStub(opened).Clear(cache_pb2.ClearRequest(), metadata=bearer(ALICE)))


def compare(folder, expected):
    found = {str(path.relative_to(folder / "out")) for path in walk(folder / "out")}
    assert found == expected, f"missing: {sorted(expected - found)[:5]}, too many: {sorted(found - expected)[:5]}"
    for name in expected:
        assert (folder / "in" / name).read_bytes() == (folder / "out" / name).read_bytes(), f"{name} differs"


# By a stock client of the tutorial's API


def secure(replica, ca):
    return grpc.secure_channel(replica.target, grpc.ssl_channel_credentials(ca))


def by_a_stock_client(folder, files, replica, authority):
    print("real input: stock grpcio with the tutorial's stubs, over TLS")
    expected = set(files) - too_large(files)
    size = sum(files[name] for name in expected)
    with secure(replica, authority.pem) as opened:
        cache = rpc_pb2_grpc.CacheStub(opened)
        began = time.monotonic()
        refused = store_all(cache, folder / "in", files)
        told("Store", len(expected), size, time.monotonic() - began)
        assert refused == too_large(files), sorted(refused ^ too_large(files))[:5]

        began, seen = time.monotonic(), set()
        for item in cache.Dump(rpc_pb2.DumpReq()):
            assert item.key not in seen, f"{item.key} came twice"
            seen.add(item.key)
            assert item.val == (folder / "in" / item.key).read_bytes(), f"{item.key} differs"
        told("Dump", len(seen), size, time.monotonic() - began)
        assert seen == expected, sorted(seen ^ expected)[:5]
        for name in sorted(expected)[:: max(1, len(expected) // 500)]:
            assert cache.Get(rpc_pb2.GetReq(key=name)).val == (folder / "in" / name).read_bytes()
    print(f"  the same byte for byte; refused, and the only ones missing: {len(refused)}")


def store_all(cache, root, files):
    """Stores every file; the names of those that are refused for their size."""
    refused, window = set(), deque()

    def settle():
        name, call = window.popleft()
        error = call.exception()
        if error is not None:
            assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED), (name, error)
            refused.add(name)

    for name in files:
        request = rpc_pb2.StoreReq(key=name, val=(root / name).read_bytes(), account_token=ALICE)
        window.append((name, cache.Store.future(request)))
        if len(window) >= WINDOW:
            settle()
    while window:
        settle()
    return refused


# A slow reader


class Sampler(threading.Thread):
    """The greatest resident memory of a replica while it runs."""

    def __init__(self, replica):
        super().__init__(daemon=True)
        self.replica, self.greatest, self.over = replica, 0, threading.Event()

    def run(self):
        while not self.over.wait(0.05):
            self.greatest = max(self.greatest, self.replica.rss())

    def stop(self):
        self.over.set()
        self.join()
        return self.greatest


def slow_reader(folder, mebibytes, seconds):
    print(f"real input: a dump of {mebibytes} MiB, read slowly for {seconds} s and then to its end")
    with Replica(folder, "--capacity", f"{2 * mebibytes}MiB") as replica, channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        val = os.urandom(MIB)
        for n in range(mebibytes):
            cache.Store(cache_pb2.StoreRequest(key=f"{n}", val=val), metadata=bearer(ALICE))
        before = replica.rss()
        sampler = Sampler(replica)
        sampler.start()
        began, count = time.monotonic(), 0
        for item in cache.Dump(cache_pb2.DumpRequest(), metadata=bearer(ALICE)):
            assert item.val == val
            count += 1
            if time.monotonic() - began < seconds:
                time.sleep(0.2)
        growth = sampler.stop() - before
    assert count == mebibytes, f"{count} of {mebibytes} entries came"
    print(f"  resident memory: {before / MIB:.0f} MiB before, {growth / MIB:+.1f} MiB at most while it was read")
    assert growth <= MAX_GROWTH, f"the server grew by {growth / MIB:.1f} MiB; {MAX_GROWTH / MIB:.0f} are allowed"


if __name__ == "__main__":
    main()
