"""The pipeline: many small calls on one stream, each a call of its own."""

import queue
import time

import pytest
from larder.v1 import cache_pb2, cache_pb2_grpc

from support.accounts import ALICE, ALICE_READER, PIPELINE_150
from support.failures import expect, refused
from support.replica import bearer
from support.waiting import Stopwatch

Call, Context = cache_pb2.PipelineCall, cache_pb2.CallContext
GetRequest, StoreRequest = cache_pb2.GetRequest, cache_pb2.StoreRequest


class Pipeline:
    """A stream that stays open until it is told to end."""

    def __init__(self, cache, token=ALICE, **options):
        self._requests = queue.Queue(maxsize=100)
        self.stream = cache.Pipeline(iter(self._requests.get, None), metadata=bearer(token), **options)

    def send(self, *calls):
        self._requests.put(cache_pb2.PipelineRequest(calls=calls))

    def end(self):
        self._requests.put(None)

    def results(self, count):
        """The next `count` results by their id."""
        found = {}
        while len(found) < count:
            for result in next(self.stream).results:
                assert result.id not in found, "one result for each id"
                found[result.id] = result
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        self.stream.cancel()


def test_each_operation_is_answered_by_its_id(cache, prefix):
    with Pipeline(cache) as pipeline:
        pipeline.send(Call(id=7, store=StoreRequest(key=prefix, val=b"1")))
        version = pipeline.results(1)[7].store.version
        assert version > 0
        pipeline.send(
            Call(id=1, get=GetRequest(key=prefix)),
            Call(id=2, get=GetRequest(key=prefix + "missing")),
            Call(id=3, touch=cache_pb2.TouchRequest(key=prefix + "t")),
            Call(id=2**64 - 1, increment=cache_pb2.IncrementRequest(key=prefix + "n", delta=4)),
            Call(id=5, store=StoreRequest(key="", val=b"x")),
            Call(id=6, delete=cache_pb2.DeleteRequest(key=prefix + "d")),
        )
        results = pipeline.results(6)
    assert (results[1].get.val, results[1].get.version) == (b"1", version)
    assert results[2].error.reason == results[3].error.reason == "NOT_FOUND"
    assert results[2**64 - 1].increment.value == 4
    assert results[5].error.reason == "KEY_INVALID"
    assert results[6].delete.existed is False and results[6].HasField("delete")


def test_a_stream_carries_many_calls(cache, prefix):
    with Pipeline(cache) as pipeline:
        for begin in range(1, 10_001, 500):
            calls = [Call(id=n, store=StoreRequest(key=f"{prefix}{n}", val=b"%d" % n)) for n in range(begin, begin + 500)]
            pipeline.send(*calls)
            assert len(pipeline.results(500)) == 500
    assert len(list(cache.Dump(cache_pb2.DumpRequest(prefix=prefix), metadata=bearer(ALICE)))) == 10_000


def test_the_end_of_the_requests_ends_the_stream_when_all_is_answered(cache, prefix):
    requests = [cache_pb2.PipelineRequest(calls=[Call(id=n, get=GetRequest(key=prefix))]) for n in range(1, 101)]
    answers = list(cache.Pipeline(iter(requests), metadata=bearer(ALICE)))
    assert sorted(result.id for answer in answers for result in answer.results) == list(range(1, 101))


def test_each_call_has_a_dry_run_of_its_own(cache, prefix):
    with Pipeline(cache) as pipeline:
        pipeline.send(Call(id=1, store=StoreRequest(key=prefix, val=b"1"), context=Context(dry_run=True)))
        assert pipeline.results(1)[1].store.version == 0
        pipeline.send(Call(id=2, get=GetRequest(key=prefix)))
        assert pipeline.results(1)[2].error.reason == "NOT_FOUND"


def test_a_call_that_may_not_write_fails_alone(cache, prefix):
    with Pipeline(cache, ALICE_READER) as pipeline:
        pipeline.send(Call(id=1, store=StoreRequest(key=prefix, val=b"1")), Call(id=2, get=GetRequest(key=prefix)))
        results = pipeline.results(2)
    assert (results[1].error.code, results[1].error.reason) == (7, "TOKEN_READ_ONLY")
    assert results[2].error.reason == "NOT_FOUND"


def test_1000_items_on_one_stream_meet_the_limit_of_150_per_second(cache, prefix):
    """Burst 5 and 150 a second, exactly as for 1,000 unary calls."""
    with Stopwatch() as watch, Pipeline(cache, PIPELINE_150) as pipeline:
        # The stream itself is a call, too.
        pipeline.send(*[Call(id=n, get=GetRequest(key=prefix)) for n in range(1, 1001)])
        results = pipeline.results(1000)
        seconds = watch.so_far()
    limited = [result for result in results.values() if result.error.reason == "ACCOUNT_RATE"]
    passed = [result for result in results.values() if result.error.reason == "NOT_FOUND"]
    assert len(limited) + len(passed) == 1000
    assert 1 <= len(passed) <= 5 + 1 + 150 * seconds
    for result in limited:
        assert (result.error.code, result.error.temporary) == (8, True)
        # The wait for one call's room; more only for those behind it.
        assert 1 <= result.error.retry_after_ms <= 1000


def test_who_waits_as_told_on_a_stream_is_served(cache, prefix):
    served, waits = 0, 0
    with Pipeline(cache, PIPELINE_150) as pipeline, Stopwatch() as watch:
        for n in range(1, 200):
            pipeline.send(Call(id=n, get=GetRequest(key=prefix)))
            error = pipeline.results(1)[n].error
            if error.reason == "ACCOUNT_RATE":
                waits += 1
                time.sleep(error.retry_after_ms / 1000)
            else:
                served += 1
    assert waits > 0 and served >= 95, (served, waits)
    assert served <= 6 + 150 * watch.seconds


@pytest.mark.parametrize(
    ("request_message", "reason"),
    [
        (cache_pb2.PipelineRequest(calls=[Call(get=GetRequest(key="k"))]), "FIELD_INVALID"),
        (cache_pb2.PipelineRequest(calls=[Call(id=1, get=GetRequest(key="k"))] * 1025), "PIPELINE_SIZE"),
    ],
)
def test_a_message_that_cannot_be_answered_call_by_call_ends_the_stream(cache, request_message, reason):
    expect(refused(cache.Pipeline, iter([request_message]), metadata=bearer(ALICE)), "INVALID_ARGUMENT", reason)


def test_a_call_without_an_operation_fails_alone(cache):
    with Pipeline(cache) as pipeline:
        pipeline.send(Call(id=1), Call(id=2, store=StoreRequest(key="k", account_token="t")))
        results = pipeline.results(2)
    assert results[1].error.reason == results[2].error.reason == "FIELD_INVALID"
