"""Input of the worst kind: each is answered with its code, other clients are unharmed, and nothing stored is lost."""

import gzip
import socket

import grpc
import pytest
from larder.v1 import cache_pb2, cache_pb2_grpc

from support.accounts import ALICE, BRIEF, token
from support.failures import expect, refused
from support.raw import Raw, frame
from support.replica import bearer, channel
from support.waiting import until

STORE, GET = "/larder.v1.Cache/Store", "/larder.v1.Cache/Get"
AUTHORIZATION = f"Bearer {ALICE}"
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 3, 8, 12, 13


@pytest.fixture(autouse=True)
def nothing_is_lost(replica, prefix):
    """Every test runs beside entries of somebody else, which are all there afterwards."""
    with channel(replica) as opened:
        cache = cache_pb2_grpc.CacheStub(opened)
        for n in range(50):
            cache.Store(cache_pb2.StoreRequest(key=f"{prefix}kept/{n}", val=b"%d" % n * 100), metadata=bearer(ALICE))
        yield
        items = list(cache.Dump(cache_pb2.DumpRequest(prefix=prefix), metadata=bearer(ALICE)))
        assert {item.key: item.val for item in items} == {f"{prefix}kept/{n}": b"%d" % n * 100 for n in range(50)}
        assert replica.process.poll() is None


@pytest.mark.parametrize(
    "request_message,reason",
    [
        (cache_pb2.StoreRequest(), "KEY_INVALID"),
        (cache_pb2.StoreRequest(key="k" * 4097), "KEY_INVALID"),
        (cache_pb2.StoreRequest(key="k", val=bytes((4 << 20) - (64 << 10))), "ENTRY_TOO_LARGE"),
        (cache_pb2.StoreRequest(key="k", ttl_ms=120_001), "TTL_TOO_LONG"),
    ],
    ids=["empty key", "long key", "large value", "long TTL"],
)
def test_what_breaks_a_limit_is_refused(cache, request_message, reason):
    expect(refused(cache.Store, request_message, metadata=bearer(BRIEF)), "INVALID_ARGUMENT", reason)


def test_a_wrong_token_is_refused(cache):
    request = cache_pb2.StoreRequest(key="k")
    expect(refused(cache.Store, request, metadata=bearer(token("wrong"))), "UNAUTHENTICATED", "TOKEN_UNKNOWN")
    expect(refused(cache.Store, request, metadata=bearer("x" * 600)), "UNAUTHENTICATED", "TOKEN_UNKNOWN")


MALFORMED = {
    "endless varint": b"\xff" * 20,
    "truncated string": b"\x0a\x7fabc",
    "wrong wire type": b"\x08\x01",
    "tag 0": b"\x00\x01",
    "not UTF-8": b"\x0a\x02\xc3\x28",
    "nested groups": b"\x0b" * 5000,
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("method", ["Store", "Get", "Delete", "Touch", "Increment", "DeletePrefix", "Dump"])
def test_malformed_protobuf(stock, method, what):
    streams = method in ("DeletePrefix", "Dump")
    call = (stock.unary_stream if streams else stock.unary_unary)(f"/larder.v1.Cache/{method}")
    failure = refused(call, MALFORMED[what], metadata=bearer(ALICE))
    expect(failure, "INVALID_ARGUMENT", "MESSAGE_MALFORMED")


def test_malformed_protobuf_in_a_pipeline(stock):
    failure = refused(stock.stream_stream("/larder.v1.Cache/Pipeline"), iter([b"\xff" * 9]), metadata=bearer(ALICE))
    expect(failure, "INVALID_ARGUMENT", "MESSAGE_MALFORMED")


def call(replica, path, body, **metadata):
    metadata.setdefault("authorization", AUTHORIZATION)
    with Raw(replica.target) as raw:
        return raw.finish(raw.call(path, body, **metadata))


def test_a_gzip_bomb(replica):
    """A gigabyte in a megabyte. Neither is held."""
    bomb = bytes(1 << 20)
    packer = __import__("zlib").compressobj(9, wbits=31)
    packed = b"".join(packer.compress(bomb) for _ in range(1024)) + packer.flush()
    assert len(packed) < 4 << 20
    before = replica.rss()
    for _ in range(5):
        stream = call(replica, STORE, frame(packed, compressed=True), grpc_encoding="gzip")
        assert stream.status == RESOURCE_EXHAUSTED, stream
        assert stream.trailers.get("grpc-retry-pushback-ms", stream.headers.get("grpc-retry-pushback-ms")) == "-1"
    assert replica.rss() - before < 64 << 20


def test_what_says_gzip_and_is_none(replica):
    stream = call(replica, STORE, frame(b"no gzip at all", compressed=True), grpc_encoding="gzip")
    assert stream.status in (INVALID_ARGUMENT, INTERNAL), stream


def test_compressed_without_saying_how(replica):
    stream = call(replica, STORE, frame(gzip.compress(b""), compressed=True))
    assert stream.status in (INVALID_ARGUMENT, INTERNAL, UNIMPLEMENTED), stream


def test_an_encoding_that_nobody_knows(replica):
    stream = call(replica, STORE, frame(b"abc", compressed=True), grpc_encoding="snappy")
    assert stream.status == UNIMPLEMENTED, stream


def test_a_message_that_claims_4_gib(replica):
    stream = call(replica, STORE, b"\x00\xff\xff\xff\xff" + bytes(100))
    assert stream.status == RESOURCE_EXHAUSTED, stream


def test_a_message_that_ends_early(replica):
    for body in [b"", b"\x00", b"\x00\x00\x00", frame(bytes(100))[:50]]:
        stream = call(replica, GET, body)
        assert stream.status in (INVALID_ARGUMENT, INTERNAL, UNIMPLEMENTED), (body, stream)


def test_two_messages_where_one_belongs(replica, prefix):
    request = cache_pb2.GetRequest(key=f"{prefix}kept/1").SerializeToString()
    stream = call(replica, GET, frame(request) * 2)
    assert stream.status in (0, INVALID_ARGUMENT, INTERNAL, UNIMPLEMENTED), stream


def test_an_unknown_flag_of_the_frame(replica):
    stream = call(replica, GET, b"\x07" + frame(b"")[1:])
    assert stream.status in (INVALID_ARGUMENT, INTERNAL), stream


def test_metadata_of_16_kib(replica):
    """Over the limit is refused; the connection, or a new one, serves on."""
    request = frame(cache_pb2.GetRequest(key="k").SerializeToString())
    with Raw(replica.target) as raw:
        small = raw.finish(raw.call(GET, request, authorization=AUTHORIZATION, filler="x" * 8000))
        assert small.status == 5, small
        large = raw.finish(raw.call(GET, request, authorization=AUTHORIZATION, filler="x" * (17 << 10)))
    refused_by_grpc = large.status == RESOURCE_EXHAUSTED
    refused_by_http2 = large.headers.get(":status") == "431" or large.reset is not None
    assert refused_by_grpc or refused_by_http2, large


def test_what_is_no_grpc(replica):
    with Raw(replica.target) as raw:
        id = raw.connection.get_next_available_stream_id()
        headers = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
        raw.connection.send_headers(id, headers, end_stream=True)
        from support.raw import Stream

        raw.streams[id] = Stream()
        raw._began = 0
        raw.flush()
        stream = raw.finish(id)
    assert stream.headers.get(":status") in ("200", "404", "405", "415"), stream


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(100), bytes(1000), b"\xff" * 1000])
def test_what_is_no_http2(replica, garbage):
    with socket.create_connection(("127.0.0.1", replica.port()), timeout=10) as opened:
        opened.sendall(garbage)
        try:
            while opened.recv(4096):
                pass
        except ConnectionError:
            pass


def test_a_client_that_hangs_up_in_the_middle(replica, cache):
    before = cache.Stats(cache_pb2.StatsRequest(), metadata=bearer(ALICE)).replica.connections
    for _ in range(50):
        raw = Raw(replica.target)
        raw.call(STORE, frame(bytes(100_000))[:5000], end=False, authorization=AUTHORIZATION)
        raw.close()
    until(
        "their connections are gone",
        lambda: cache.Stats(cache_pb2.StatsRequest(), metadata=bearer(ALICE)).replica.connections <= before + 1,
    )


def test_a_method_that_is_none(stock):
    failure = refused(stock.unary_unary("/larder.v1.Cache/Steal"), b"", metadata=bearer(ALICE))
    expect(failure, "UNIMPLEMENTED", "METHOD_UNKNOWN")
    assert failure.code == grpc.StatusCode.UNIMPLEMENTED
