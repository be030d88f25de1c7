"""Limits at exactly the tutorial's figures, from the shipped `examples/tutorial.env`; and pushback as gRPC's own retry policy
understands it (gRFC A6)."""

import json
import pathlib
import socket
import threading
import time

import grpc
import pytest
from larder.v1 import cache_pb2, cache_pb2_grpc

from support.accounts import ALICE, ONE_PER_SECOND
from support.failures import expect, failure_of
from support.raw import Raw
from support.replica import bearer, channel
from support.waiting import Stopwatch, until

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples/tutorial.env"
STREAMS, CONNECTIONS, RATE, BURST = 64, 1024, 150, 5
STATS = cache_pb2.StatsRequest()


def example():
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def tutorial(start):
    return start(environment=example())


def retrying(replica, initial_backoff, attempts=5):
    """A stock channel with a retry policy for RESOURCE_EXHAUSTED."""
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": initial_backoff,
        "maxBackoff": initial_backoff,
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }
    config = {"methodConfig": [{"name": [{"service": "larder.v1.Cache"}], "retryPolicy": policy}]}
    return channel(replica, service_config=json.dumps(config), enable_retries=1)


def exhaust(cache, token=ALICE):
    """Calls until one is refused; its failure."""
    for _ in range(5000):
        error = cache.Stats.future(STATS, metadata=bearer(token)).exception()
        if error is not None:
            return failure_of(error)
    raise AssertionError("5,000 calls in a row were served")


def test_the_example_says_the_tutorials_figures():
    settings = example()
    names = ["LARDER_MAX_STREAMS", "LARDER_MAX_CONNECTIONS", "LARDER_REQUESTS_PER_SECOND", "LARDER_BURST"]
    assert [int(settings[name]) for name in names] == [STREAMS, CONNECTIONS, RATE, BURST]
    assert settings["LARDER_TUTORIAL_API"] == "true"


def test_150_calls_per_second_and_a_burst_of_5(tutorial):
    """A client that never lets up is served at the rate, and the burst on top; nothing more, and hardly less."""
    with channel(tutorial) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        served = 0
        with Stopwatch() as watch:
            while watch.so_far() < 3:
                calls = [cache.Stats.future(STATS, metadata=bearer(ALICE)) for _ in range(20)]
                served += sum(call.exception() is None for call in calls)
    ceiling = BURST + 1 + RATE * watch.seconds
    assert 0.9 * RATE * watch.seconds <= served <= ceiling, (served, ceiling)


def test_a_refusal_says_when_there_is_room_again(tutorial):
    with channel(tutorial) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        failure = expect(exhaust(cache), "RESOURCE_EXHAUSTED", "SERVER_RATE")
        assert failure.error.temporary
        # One call's room comes every 6.7 ms.
        assert 1 <= failure.pushback <= 7


def test_grpcs_own_retry_policy_obeys_the_pushback_rather_than_its_backoff(tutorial):
    """The policy alone would wait about 30 s (times jitter) before its first retry; the server says some milliseconds."""
    with channel(tutorial) as opened, retrying(tutorial, "30s") as patient:
        hurried, cache = cache_pb2_grpc.CacheStub(opened), cache_pb2_grpc.CacheStub(patient)
        grpc.channel_ready_future(patient).result(10)
        retried = 0
        for _ in range(50):
            exhaust(hurried)
            with Stopwatch() as watch:
                assert cache.Stats(STATS, metadata=bearer(ALICE), timeout=10).account_id == "alice"
            assert watch.seconds < 2
            retried += watch.seconds > 0.001
        assert retried > 0


def test_grpcs_own_retry_policy_waits_as_told_and_then_succeeds(replica):
    """The policy alone would retry after 1 ms, five times in vain; the server says about a second."""
    with channel(replica) as opened, retrying(replica, "0.001s") as patient:
        hurried, cache = cache_pb2_grpc.CacheStub(opened), cache_pb2_grpc.CacheStub(patient)
        grpc.channel_ready_future(patient).result(10)
        told = exhaust(hurried, ONE_PER_SECOND).pushback / 1000
        assert told > 0.3
        with Stopwatch() as watch:
            assert cache.Stats(STATS, metadata=bearer(ONE_PER_SECOND), timeout=10).account_id == "one-per-second"
        assert watch.seconds >= told - 0.1, (watch.seconds, told)


def test_grpcs_own_retry_policy_leaves_alone_what_a_retry_cannot_help(replica):
    """A message over the limit is RESOURCE_EXHAUSTED, too, but says: do not retry."""
    with retrying(replica, "2s") as opened:
        store = cache_pb2_grpc.CacheStub(opened).Store
        with Stopwatch() as watch:
            error = store.future(cache_pb2.StoreRequest(key="k", val=bytes(5 << 20)), metadata=bearer(ALICE)).exception()
        failure = expect(failure_of(error), "RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
        assert failure.pushback == -1
        assert watch.seconds < 1


def test_the_limit_is_met_before_the_message_is_decoded(tutorial):
    """What is refused for the rate is not looked at: a malformed message meets the limit first."""
    with channel(tutorial) as opened:
        exhaust(cache_pb2_grpc.CacheStub(opened))
        raw = opened.unary_unary("/larder.v1.Cache/Store")
        codes = {raw.future(b"\xff" * 50, metadata=bearer(ALICE)).exception().code().name for _ in range(20)}
    assert "RESOURCE_EXHAUSTED" in codes


def test_64_streams_on_one_connection(tutorial):
    with Raw(tutorial.target) as raw:
        raw.step()
        assert raw.connection.remote_settings.max_concurrent_streams == STREAMS
    ended = threading.Event()
    with channel(tutorial) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)

        def wait():
            ended.wait(60)
            return
            yield

        open_streams = []

        def hold():
            """Opens a stream that the server holds; one that is over the rate does not count."""
            stream = cache.Pipeline(wait(), metadata=bearer(ALICE))
            time.sleep(1 / RATE)
            open_streams.append(stream)

        for _ in range(STREAMS):
            hold()
        time.sleep(0.1)
        open_streams = [stream for stream in open_streams if stream.is_active()]
        while len(open_streams) < STREAMS:
            hold()
        # A stock client keeps the 65th call to itself until one of the others ends.
        call = cache.Stats.future(STATS, metadata=bearer(ALICE), timeout=0.5)
        assert call.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
        open_streams[0].cancel()
        until("the next call is served", lambda: cache.Stats.future(STATS, metadata=bearer(ALICE), timeout=0.5).exception() is None)
        ended.set()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.mark.flood
def test_1024_connections(tutorial):
    def connect():
        opened = socket.create_connection(("127.0.0.1", tutorial.port()), timeout=10)
        opened.sendall(PREFACE)
        return opened

    def answered(connection):
        try:
            return bool(connection.recv(9))
        except OSError:
            return False

    connections = []
    try:
        for _ in range(CONNECTIONS):
            connections.append(connect())
            assert answered(connections[-1]), f"connection {len(connections)} was refused"
        for _ in range(3):
            one_more = connect()
            assert not answered(one_more), "connection 1,025 was served"
            one_more.close()
        # Room again as soon as one is gone.
        connections.pop().close()

        def served():
            again = connect()
            connections.append(again)
            return answered(again)

        until("a connection is served again", served)
    finally:
        for connection in connections:
            connection.close()
