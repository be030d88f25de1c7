"""The grpcio client of the comparison: generated code on `grpc.aio` channels as they come, a task for each call in flight.
Answers as the other drivers do (`benches/client/loops.rs`)."""

import asyncio
import glob
import json
import os
import sys
import time

import grpc
from larder.v1 import cache_pb2, cache_pb2_grpc

STRIDE = 7_919
TIMEOUT_S = 1


class Driver:
    def __init__(self, words):
        self.address, self.verb = words["address"], words["verb"]
        self.bytes, self.keys, self.connections, self.window = (
            int(words[name]) for name in ("bytes", "keys", "connections", "window")
        )
        self.warm_up, self.time = int(words["warm_up_ms"]) / 1e3, int(words["window_ms"]) / 1e3
        self.servers = words["servers"].split(",")
        self.metadata = (("authorization", "Bearer " + os.environ["LARDER_TOKEN"]),)
        self.value = b"x" * self.bytes
        self.items, self.stopped = 0, False

    async def run(self):
        # Channels of one process to one address share a connection unless told otherwise.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(self.address, options=options) for _ in range(self.connections)]
        stubs = [cache_pb2_grpc.CacheStub(channel) for channel in channels]
        callers = [
            asyncio.create_task(self.call_on(stub, (number * self.window + caller) * 131))
            for number, stub in enumerate(stubs)
            for caller in range(self.window)
        ]
        await asyncio.sleep(self.warm_up)
        began, items, client, server = time.monotonic(), self.items, cpu(["self"]), cpu(self.servers)
        await asyncio.sleep(self.time)
        seen = {
            "items": self.items - items,
            "seconds": time.monotonic() - began,
            "client": cpu(["self"]) - client,
            "server": cpu(self.servers) - server,
        }
        self.stopped = True
        await asyncio.gather(*callers)
        for channel in channels:
            await channel.close()
        return seen

    async def call_on(self, stub, index):
        while not self.stopped:
            index = (index + STRIDE) % self.keys
            key = f"c/{self.bytes}/{index:012}"
            if self.verb == "get":
                request = cache_pb2.GetRequest(key=key)
                got = await stub.Get(request, timeout=TIMEOUT_S, metadata=self.metadata)
                assert len(got.val) == self.bytes, f"a value of {len(got.val)} bytes"
            else:
                request = cache_pb2.StoreRequest(key=key, val=self.value)
                await stub.Store(request, timeout=TIMEOUT_S, metadata=self.metadata)
            self.items += 1


def cpu(processes):
    """CPU time that all threads of processes used, in seconds."""
    nanoseconds = 0
    for process in processes:
        for file in glob.glob(f"/proc/{process}/task/*/schedstat"):
            try:
                with open(file) as text:
                    nanoseconds += int(text.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):  # the thread ended
                pass
    return nanoseconds / 1e9


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Driver(dict(word.split("=", 1) for word in sys.argv[1:])).run())))
