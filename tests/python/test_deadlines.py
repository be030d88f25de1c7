"""Deadlines of 50 ms and 1 s: DEADLINE_EXCEEDED, in time, on unary calls and on streams to their end.

A stock client enforces its deadline by itself, so the server's part is shown with a client that has none: it says
`grpc-timeout` and waits.
"""

import grpc
import pytest
from larder.v1 import cache_pb2

from support.accounts import ALICE
from support.raw import Raw, frame
from support.replica import bearer
from support.waiting import Stopwatch

DEADLINES = [0.05, 1.0]
LATE = 0.3


@pytest.fixture(scope="module")
def filled(replica):
    """A prefix with 8 MiB below it: more than any window."""
    from larder.v1 import cache_pb2_grpc

    from support.replica import channel

    with channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        for n in range(32):
            cache.Store(cache_pb2.StoreRequest(key=f"deadlines/{n}", val=bytes(256 << 10)), metadata=bearer(ALICE))
    return "deadlines/"


def milliseconds(seconds):
    return f"{int(seconds * 1000)}m"


def ended_in_time(stream, seconds):
    assert stream.status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0], stream
    assert seconds * 0.9 <= stream.seconds <= seconds + LATE


@pytest.mark.parametrize("seconds", DEADLINES)
def test_a_dump_that_nobody_reads_ends_at_its_deadline(replica, filled, seconds):
    """The status waits behind what was sent before, so it comes once there is room; nothing is read from the store after the
    deadline."""
    with Raw(replica.target, acknowledge=False) as raw:
        request = cache_pb2.DumpRequest(prefix=filled).SerializeToString()
        id = raw.call("/larder.v1.Cache/Dump", frame(request), authorization=f"Bearer {ALICE}", grpc_timeout=milliseconds(seconds))
        stream = raw.finish(id, seconds + LATE)
        assert not stream.ended and len(stream.data) <= 65535, "the client gave no more room"
        raw.give_room(65535)
        raw.finish(id, 5)
    assert stream.status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0], stream.trailers
    assert len(stream.data) < 2 << 20, "of 8 MiB"


@pytest.mark.parametrize("seconds", DEADLINES)
def test_an_idle_pipeline_ends_at_its_deadline(replica, seconds):
    with Raw(replica.target) as raw:
        id = raw.call("/larder.v1.Cache/Pipeline", b"", end=False, authorization=f"Bearer {ALICE}", grpc_timeout=milliseconds(seconds))
        ended_in_time(raw.finish(id, 5), seconds)


@pytest.mark.parametrize("seconds", DEADLINES)
def test_a_request_that_never_comes_whole_ends_at_its_deadline(replica, seconds):
    half = frame(bytes(1000))[:500]
    with Raw(replica.target) as raw:
        id = raw.call("/larder.v1.Cache/Get", half, end=False, authorization=f"Bearer {ALICE}", grpc_timeout=milliseconds(seconds))
        ended_in_time(raw.finish(id, 5), seconds)


@pytest.mark.parametrize("seconds", DEADLINES)
def test_a_stock_client_that_does_not_read_its_dump_sees_the_deadline(cache, filled, seconds):
    with Stopwatch() as watch:
        stream = cache.Dump(cache_pb2.DumpRequest(prefix=filled), metadata=bearer(ALICE), timeout=seconds)
        next(stream)
        # Reads nothing more until the deadline is over.
        code = stream.code()
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert seconds * 0.9 <= watch.seconds <= seconds + LATE


@pytest.mark.parametrize("seconds", DEADLINES)
def test_a_stock_client_sees_the_deadline_of_an_idle_pipeline(cache, seconds):
    import threading

    never = threading.Event()
    with Stopwatch() as watch:
        stream = cache.Pipeline(iter(never.wait, None), metadata=bearer(ALICE), timeout=seconds)
        code = stream.code()
    never.set()
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert seconds * 0.9 <= watch.seconds <= seconds + LATE


def test_a_deadline_that_is_over_already_changes_nothing(replica, cache, prefix):
    request = cache_pb2.StoreRequest(key=prefix, val=b"v").SerializeToString()
    with Raw(replica.target) as raw:
        id = raw.call("/larder.v1.Cache/Store", frame(request), authorization=f"Bearer {ALICE}", grpc_timeout="0m")
        assert raw.finish(id).status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    missing = cache.Get.future(cache_pb2.GetRequest(key=prefix), metadata=bearer(ALICE)).exception()
    assert missing.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("timeout", ["", "50", "m", "-1m", "123456789m", "50x"])
def test_a_malformed_deadline_is_refused(replica, timeout):
    request = cache_pb2.GetRequest(key="k").SerializeToString()
    with Raw(replica.target) as raw:
        id = raw.call("/larder.v1.Cache/Get", frame(request), authorization=f"Bearer {ALICE}", grpc_timeout=timeout)
        assert raw.finish(id).status == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_an_item_has_a_deadline_of_its_own(cache, prefix):
    """One that is generous is kept; the enclosing call's, if earlier, wins."""
    context = cache_pb2.CallContext(timeout_ms=10_000)
    item = cache_pb2.BatchStoreItem(store=cache_pb2.StoreRequest(key=prefix), context=context)
    (answer,) = cache.BatchStore(cache_pb2.BatchStoreRequest(items=[item]), metadata=bearer(ALICE), timeout=5)
    assert answer.results[0].store.version > 0
