"""The graceful end: SIGTERM, NOT_SERVING, GOAWAY, calls in progress end, exit 0; in bounded time whoever is connected."""

import signal
import socket
import ssl

import grpc
import pytest
from larder.v1 import cache_pb2, cache_pb2_grpc

from support.accounts import ALICE
from support.certificates import Authority, write_pair
from support.raw import Raw, frame
from support.replica import bearer, channel
from support.waiting import Stopwatch, until

DELAY, TIMEOUT = 0.5, 2.0
FLAGS = ["--drain-delay", "500ms", "--drain-timeout", "2s"]
# Beside the two: noticing, closing, and a busy machine.
MARGIN = 2.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_nobody_there_it_ends_at_once(start, number):
    replica = start(*FLAGS)
    with Stopwatch() as watch:
        replica.process.send_signal(number)
        assert replica.wait(10) == 0
    assert watch.seconds < DELAY + MARGIN


def test_calls_in_progress_end_and_later_ones_are_told_to_go_elsewhere(start):
    replica = start(*FLAGS)
    with Raw(replica.target) as raw:
        request = frame(cache_pb2.StoreRequest(key="k", val=bytes(1000)).SerializeToString())
        id = raw.call("/larder.v1.Cache/Store", request[:500], end=False, authorization=f"Bearer {ALICE}")
        replica.terminate()
        until("GOAWAY came", lambda: raw.goaway or raw.step(0.1) and raw.goaway, 5)
        # Half of the message was there before; the other half comes after.
        raw.send(id, request[500:])
        assert raw.finish(id).status == 0
    with Stopwatch() as watch:
        assert replica.wait(10) == 0
    assert watch.seconds < MARGIN


def test_until_the_news_is_out_it_serves_as_before(start):
    replica = start(*FLAGS)
    with channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        cache.Stats(cache_pb2.StatsRequest(), metadata=bearer(ALICE))
        replica.terminate()
        with Stopwatch() as watch:
            while watch.so_far() < DELAY * 0.8:
                cache.Stats(cache_pb2.StatsRequest(), metadata=bearer(ALICE))
    assert replica.wait(10) == 0


def test_a_pipeline_is_drained(start):
    """`drain` comes, what was read is answered, and the stream ends OK."""
    import queue

    replica = start(*FLAGS)
    requests = queue.Queue()
    with channel(replica) as opened:
        stream = cache_pb2_grpc.CacheStub(opened).Pipeline(iter(requests.get, None), metadata=bearer(ALICE))
        call = cache_pb2.PipelineCall(id=1, store=cache_pb2.StoreRequest(key="k", val=b"v"))
        requests.put(cache_pb2.PipelineRequest(calls=[call]))
        assert next(stream).results[0].store.version > 0
        replica.terminate()
        rest = list(stream)
        assert any(message.HasField("drain") for message in rest)
        assert stream.code() == grpc.StatusCode.OK
        requests.put(None)
    assert replica.wait(10) == 0


def test_a_dump_goes_on_elsewhere(start):
    """Its reader is told UNAVAILABLE, temporary."""
    from support.failures import failure_of

    replica = start(*FLAGS)
    with channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        for n in range(40):
            cache.Store(cache_pb2.StoreRequest(key=f"{n}", val=bytes(1 << 20)), metadata=bearer(ALICE))
        dump = cache.Dump(cache_pb2.DumpRequest(), metadata=bearer(ALICE))
        first = next(dump)
        assert first.cursor
        replica.terminate()
        replica_code = replica.wait(15)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in dump:
                pass
    assert replica_code == 0
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    if "grpc-status-details-bin" in dict(caught.value.trailing_metadata() or ()):
        assert failure_of(caught.value).error.temporary


def test_silent_and_stuck_clients_do_not_hold_it_up(start, tmp_path):
    replica = start(*FLAGS)
    silent = [socket.create_connection(("127.0.0.1", replica.port())) for _ in range(20)]
    # A preface and nothing more; half a request; a dump that nobody reads; an open pipeline.
    stuck = [Raw(replica.target, acknowledge=False) for _ in range(4)]
    authorization = f"Bearer {ALICE}"
    stuck[1].call("/larder.v1.Cache/Store", frame(bytes(1000))[:100], end=False, authorization=authorization)
    with channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        cache.Store(cache_pb2.StoreRequest(key="large", val=bytes(1 << 20)), metadata=bearer(ALICE))
    stuck[2].call("/larder.v1.Cache/Dump", frame(b""), authorization=authorization)
    stuck[3].call("/larder.v1.Cache/Pipeline", b"", end=False, authorization=authorization)
    stuck[2].step()
    with Stopwatch() as watch:
        replica.terminate()
        assert replica.wait(15) == 0
    assert DELAY * 0.8 <= watch.seconds <= DELAY + TIMEOUT + MARGIN
    for opened in silent:
        opened.close()
    for raw in stuck:
        raw.close()


def test_half_open_handshakes_do_not_hold_it_up(start, tmp_path):
    certificate, key = write_pair(tmp_path / "server", Authority().issue())
    replica = start(*FLAGS, "--tls-cert", certificate, "--tls-key", key)
    silent = [socket.create_connection(("127.0.0.1", replica.port())) for _ in range(20)]
    hello = ssl.MemoryBIO()
    context = ssl.create_default_context()
    half = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    client_hello = hello.read()
    for opened in silent[:10]:
        opened.sendall(client_hello[: len(client_hello) // 2])
    with Stopwatch() as watch:
        replica.terminate()
        assert replica.wait(15) == 0
    assert watch.seconds <= DELAY + TIMEOUT + MARGIN
    for opened in silent:
        opened.close()
