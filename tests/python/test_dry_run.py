"""`dry-run: 1` makes every check and changes nothing, on every method."""

import pytest
from larder.v1 import cache_pb2

from support.accounts import ALICE, ALICE_READER, THREE_KEYS
from support.failures import expect, refused
from support.replica import bearer

Store, Get = cache_pb2.StoreRequest, cache_pb2.GetRequest
FOR_REAL, DRY = bearer(ALICE), bearer(ALICE, dry_run="1")


@pytest.fixture
def unchanged(cache, prefix):
    """An entry and a counter that must be the same at the end, and no others."""
    cache.Store(Store(key=f"{prefix}k", val=b"value", ttl_ms=500_000), metadata=FOR_REAL)
    cache.Increment(cache_pb2.IncrementRequest(key=f"{prefix}n", delta=7), metadata=FOR_REAL)

    def state():
        items = cache.Dump(cache_pb2.DumpRequest(prefix=prefix), metadata=FOR_REAL)
        return sorted((item.key, item.val, item.version, item.remaining_ttl_ms > 400_000) for item in items)

    before = state()
    assert len(before) == 2
    usage = cache.Stats(cache_pb2.StatsRequest(), metadata=FOR_REAL)
    yield prefix
    assert state() == before
    after = cache.Stats(cache_pb2.StatsRequest(), metadata=FOR_REAL)
    assert (after.keys, after.bytes) == (usage.keys, usage.bytes)


def test_of_a_store(cache, unchanged):
    for key in ["new", "k"]:
        assert cache.Store(Store(key=unchanged + key, val=b"other", ttl_ms=1), metadata=DRY).version == 0


def test_of_a_store_whose_condition_fails(cache, unchanged):
    absent = Store(key=unchanged + "k", condition=cache_pb2.STORE_CONDITION_IF_ABSENT)
    expect(refused(cache.Store, absent, metadata=DRY), "ALREADY_EXISTS", "ALREADY_EXISTS")
    present = Store(key=unchanged + "new", condition=cache_pb2.STORE_CONDITION_IF_PRESENT)
    expect(refused(cache.Store, present, metadata=DRY), "NOT_FOUND", "NOT_FOUND")
    version = Store(key=unchanged + "k", condition=cache_pb2.STORE_CONDITION_IF_VERSION, expected_version=1)
    expect(refused(cache.Store, version, metadata=DRY), "ABORTED", "VERSION_MISMATCH")


def test_of_a_get_is_a_get(cache, unchanged):
    assert cache.Get(Get(key=unchanged + "k"), metadata=DRY).val == b"value"


def test_of_a_delete(cache, unchanged):
    delete = lambda key: cache.Delete(cache_pb2.DeleteRequest(key=unchanged + key), metadata=DRY).existed  # noqa: E731
    assert delete("k") is True
    assert delete("new") is False


def test_of_a_touch(cache, unchanged):
    answer = cache.Touch(cache_pb2.TouchRequest(key=unchanged + "k", ttl_ms=1000), metadata=DRY)
    assert (answer.changed, answer.version) == (True, 0)
    assert answer.remaining_ttl_ms <= 1000


def test_of_an_increment(cache, unchanged):
    request = cache_pb2.IncrementRequest(key=unchanged + "n", delta=5, request_id="once")
    for _ in range(2):
        answer = cache.Increment(request, metadata=DRY)
        assert (answer.value, answer.version) == (12, 0)


def test_of_batches(cache, unchanged):
    stores = [cache_pb2.BatchStoreItem(store=Store(key=unchanged + key, val=b"x")) for key in ["k", "new"]]
    for message in cache.BatchStore(cache_pb2.BatchStoreRequest(items=stores), metadata=DRY):
        assert all(result.store.version == 0 and not result.HasField("error") for result in message.results)
    deletes = [cache_pb2.BatchDeleteItem(delete=cache_pb2.DeleteRequest(key=unchanged + "k"))]
    (message,) = cache.BatchDelete(cache_pb2.BatchDeleteRequest(items=deletes), metadata=DRY)
    assert message.results[0].delete.existed


def test_of_delete_prefix_counts_what_would_go(cache, unchanged):
    request = cache_pb2.DeletePrefixRequest(prefix=unchanged)
    last = list(cache.DeletePrefix(request, metadata=DRY))[-1]
    assert (last.deleted, last.done) == (2, True)


def test_of_clear_counts_what_would_go(cache, unchanged):
    keys = cache.Stats(cache_pb2.StatsRequest(), metadata=FOR_REAL).keys
    last = list(cache.Clear(cache_pb2.ClearRequest(), metadata=DRY))[-1]
    assert (last.deleted, last.done) == (keys, True)


def test_of_a_dump_is_a_dump(cache, unchanged):
    assert len(list(cache.Dump(cache_pb2.DumpRequest(prefix=unchanged), metadata=DRY))) == 2


def test_of_a_pipeline_holds_for_all_its_calls(cache, unchanged):
    calls = [
        cache_pb2.PipelineCall(id=1, store=Store(key=unchanged + "k", val=b"other")),
        cache_pb2.PipelineCall(id=2, delete=cache_pb2.DeleteRequest(key=unchanged + "k")),
        cache_pb2.PipelineCall(id=3, increment=cache_pb2.IncrementRequest(key=unchanged + "n", delta=1)),
        cache_pb2.PipelineCall(id=4, touch=cache_pb2.TouchRequest(key=unchanged + "k", ttl_ms=5)),
    ]
    messages = cache.Pipeline(iter([cache_pb2.PipelineRequest(calls=calls)]), metadata=DRY)
    results = {result.id: result for message in messages for result in message.results}
    assert len(results) == 4 and not any(result.HasField("error") for result in results.values())


def test_asks_the_quota_and_takes_nothing(cache, prefix):
    mine, dry = bearer(THREE_KEYS), bearer(THREE_KEYS, dry_run="1")
    list(cache.Clear(cache_pb2.ClearRequest(), metadata=mine))
    for _ in range(5):
        cache.Store(Store(key=prefix), metadata=dry)
    for n in range(3):
        cache.Store(Store(key=f"{prefix}{n}"), metadata=mine)
    expect(refused(cache.Store, Store(key=prefix), metadata=dry), "FAILED_PRECONDITION", "QUOTA_KEYS")


def test_checks_the_token_and_the_request(cache, prefix):
    reader = bearer(ALICE_READER, dry_run="1")
    expect(refused(cache.Store, Store(key=prefix), metadata=reader), "PERMISSION_DENIED", "TOKEN_READ_ONLY")
    expect(refused(cache.Store, Store(), metadata=DRY), "INVALID_ARGUMENT", "KEY_INVALID")
    expect(refused(cache.Store, Store(key=prefix), metadata=[("dry-run", "1")]), "UNAUTHENTICATED", "TOKEN_MISSING")


def test_dry_run_0_is_for_real(cache, prefix):
    assert cache.Store(Store(key=prefix), metadata=bearer(ALICE, dry_run="0")).version > 0
