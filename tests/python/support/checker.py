"""Stock clients that check what they are answered, and know nothing of the ring: `round_robin` over fixed addresses, and the
retry policy that any gRPC client may have. A second witness beside `tests/dev/load.rs`, which shares no code with it."""

import json
import pathlib
import random
import threading
import time

import grpc
from larder.v1 import cache_pb2, cache_pb2_grpc

from support.dev import TOKEN
from support.replica import BIN, bearer
from support.waiting import until

# What is promised; for a debug build, which takes some ten times the CPU, three times that, or a busy machine looks like a fault.
DEADLINE = 1.0 if "release" in pathlib.Path(BIN).parts else 3.0
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
OPTIONS = {
    "grpc.service_config": json.dumps(SERVICE_CONFIG),
    "grpc.use_local_subchannel_pool": 1,
    # Made of several addresses, the default is no authority that HTTP allows (RFC 9113, 8.3.1).
    "grpc.default_authority": "larder",
    # A replica that comes is to be found soon, not after the two minutes that are the default.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 500,
}
# Keys that are stored or read at once before and after the run.
BULK = 64
# What an open loop may be short of its plan.
SHORTFALL = 0.05


class Checker:
    """Calls at a planned rate, whatever becomes of those before. One store per key is under way at a time, and each has the
    next number of its key."""

    def __init__(self, addresses, rate=250, keys=2000, stores=0.1, value_bytes=1024, token=TOKEN, deadline=DEADLINE, connect=None):
        """`connect` makes the channel, if it is not to be in the clear to all `addresses`."""
        self.rate, self.stores, self.value_bytes = rate, stores, value_bytes
        self.metadata, self.deadline = bearer(token), deadline
        self.keys = [f"checked/{n}" for n in range(keys)]
        self.begun, self.acknowledged = dict.fromkeys(self.keys, 0), dict.fromkeys(self.keys, 0)
        self.busy = set()
        self.planned = self.done = self.finished = self.in_flight = 0
        self.failed, self.lost, self.stale = [], set(), []
        # When each call ended, by the monotonic clock, and how long it took, both in seconds.
        self.times = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        connect = connect or grpc.insecure_channel
        self.channel = connect("ipv4:" + ",".join(addresses), options=list(OPTIONS.items()))
        self.stub = cache_pb2_grpc.CacheStub(self.channel)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        grpc.channel_ready_future(self.channel).result(timeout=10)
        for key in self.keys:
            self._room()
            self._store(key)
        until("every key is stored", self._idle, 30)
        assert not self.failed, self.failed[:5]
        self.done = 0
        self.times.clear()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(timeout=10)
        self.channel.close()

    def goes_on(self, seconds=0.5):
        """Waits until as many calls were made as are planned in that time."""
        enough = self.done + self.rate * seconds
        until("the load goes on", lambda: self.done >= enough, 30 + seconds)

    def stop(self):
        """Ends the calls and reads every key once more."""
        self.goes_on()
        self.stopping.set()
        self.thread.join(timeout=10)
        until("every call ends", self._idle, 30)
        # What comes after these is no part of the open loop.
        done = self.finished = self.done
        for key in self.keys:
            self._room()
            self._get(key)
        until("every key is read", self._idle, 30)
        print(f"{done} calls of {self.planned}: {len(self.failed)} failed, {len(self.lost)} lost, {len(self.stale)} stale")
        assert done >= self.planned * (1 - SHORTFALL), f"the run is void: {done} calls of {self.planned}"

    def nothing_happened(self):
        assert not self.failed, f"{len(self.failed)} failed: {self.failed[:5]}"
        assert not self.lost, f"{len(self.lost)} lost: {sorted(self.lost)[:5]}"
        assert not self.stale, f"{len(self.stale)} stale: {self.stale[:5]}"

    def _room(self):
        until("an earlier call ends", lambda: self.in_flight < BULK)

    def _idle(self):
        return self.in_flight == 0

    def _run(self):
        began = time.monotonic()
        begun = 0
        while not self.stopping.is_set():
            self.planned = int((time.monotonic() - began) * self.rate)
            for _ in range(begun, self.planned):
                key = random.choice(self.keys)
                if random.random() < self.stores and key not in self.busy:
                    self._store(key)
                else:
                    self._get(key)
            begun = self.planned
            time.sleep(0.001)

    def _store(self, key):
        self.busy.add(key)
        self.begun[key] += 1
        number = self.begun[key]
        value = f"{key}:{number}:".ljust(self.value_bytes, ".").encode()
        request = cache_pb2.StoreRequest(key=key, val=value, ttl_ms=3_600_000)

        def ended(call):
            if call.code() == grpc.StatusCode.OK:
                self.acknowledged[key] = number
            else:
                self.failed.append((key, call.code(), call.details()))
            self.busy.discard(key)

        self._call(self.stub.Store, request, ended)

    def _get(self, key):
        before = self.acknowledged[key]

        def ended(call):
            if call.code() == grpc.StatusCode.NOT_FOUND:
                if before:
                    self.lost.add(key)
            elif call.code() != grpc.StatusCode.OK:
                self.failed.append((key, call.code(), call.details()))
            else:
                whose, number, _ = call.result().val.decode().split(":")
                if whose != key or int(number) < before:
                    self.stale.append((key, whose, number, before))

        self._call(self.stub.Get, cache_pb2.GetRequest(key=key), ended)

    def _call(self, method, request, ended):
        began = time.monotonic()

        def over(call):
            ended(call)
            now = time.monotonic()
            with self.lock:
                self.in_flight -= 1
                self.done += 1
                self.times.append((now, now - began))

        with self.lock:
            self.in_flight += 1
        method.future(request, metadata=self.metadata, timeout=self.deadline).add_done_callback(over)
