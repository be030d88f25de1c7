"""Each method of larder.v1, as a stock client sees it."""

import threading

import pytest
from larder.v1 import accounts_pb2, cache_pb2

from support.accounts import ALICE, ALICE_OLD, ALICE_READER, BOB, BRIEF, THREE_KEYS
from support.failures import expect, refused
from support.replica import bearer
from support.waiting import until

AS_ALICE = bearer(ALICE)
AS_BOB = bearer(BOB)
IF_ABSENT, IF_PRESENT, IF_VERSION = (
    cache_pb2.STORE_CONDITION_IF_ABSENT,
    cache_pb2.STORE_CONDITION_IF_PRESENT,
    cache_pb2.STORE_CONDITION_IF_VERSION,
)


def store(cache, key, val=b"value", metadata=AS_ALICE, **fields):
    return cache.Store(cache_pb2.StoreRequest(key=key, val=val, **fields), metadata=metadata).version


def get(cache, key, metadata=AS_ALICE):
    return cache.Get(cache_pb2.GetRequest(key=key), metadata=metadata)


def missing(cache, key, metadata=AS_ALICE):
    return expect(refused(cache.Get, cache_pb2.GetRequest(key=key), metadata=metadata), "NOT_FOUND", "NOT_FOUND")


# Store and Get


@pytest.mark.parametrize("size", [0, 1, 255, 256, 4096, 65536, 1 << 20, (4 << 20) - (64 << 10) - 40])
def test_a_value_comes_back_as_it_was_stored(cache, prefix, size):
    val = bytes(i * 31 % 251 for i in range(min(size, 4096))) * (size // 4096 + 1)
    key = f"{prefix}k"[:40]
    version = store(cache, key, val[:size])
    answer = get(cache, key)
    assert answer.val == val[:size]
    assert answer.version == version > 0
    assert answer.remaining_ttl_ms == 0


def test_versions_of_a_key_grow_also_over_a_delete(cache, prefix):
    first, second = store(cache, prefix), store(cache, prefix)
    cache.Delete(cache_pb2.DeleteRequest(key=prefix), metadata=AS_ALICE)
    assert first < second < store(cache, prefix)


def test_keys_are_text_of_any_script(cache, prefix):
    for key in [f"{prefix}schlüssel/鍵/🔑", f"{prefix} %2F\n\x00\x7f", prefix + "k" * (4096 - len(prefix))]:
        store(cache, key, key.encode())
        assert get(cache, key).val == key.encode()


def test_if_absent_stores_once(cache, prefix):
    store(cache, prefix, b"first", condition=IF_ABSENT)
    request = cache_pb2.StoreRequest(key=prefix, val=b"second", condition=IF_ABSENT)
    expect(refused(cache.Store, request, metadata=AS_ALICE), "ALREADY_EXISTS", "ALREADY_EXISTS")
    assert get(cache, prefix).val == b"first"


def test_if_present_stores_over_something_only(cache, prefix):
    request = cache_pb2.StoreRequest(key=prefix, val=b"second", condition=IF_PRESENT)
    expect(refused(cache.Store, request, metadata=AS_ALICE), "NOT_FOUND", "NOT_FOUND")
    store(cache, prefix, b"first")
    cache.Store(request, metadata=AS_ALICE)
    assert get(cache, prefix).val == b"second"


def test_if_version_stores_over_that_version_only(cache, prefix):
    old = store(cache, prefix, b"first")
    current = store(cache, prefix, b"second", condition=IF_VERSION, expected_version=old)
    request = cache_pb2.StoreRequest(key=prefix, val=b"third", condition=IF_VERSION, expected_version=old)
    failure = expect(refused(cache.Store, request, metadata=AS_ALICE), "ABORTED", "VERSION_MISMATCH")
    assert failure.info.metadata["current_version"] == str(current)
    assert get(cache, prefix).val == b"second"


def test_of_many_writers_with_one_expected_version_one_wins(cache, prefix):
    version = store(cache, prefix, b"0")
    wins, losses = [], []

    def write(n):
        request = cache_pb2.StoreRequest(key=prefix, val=b"%d" % n, condition=IF_VERSION, expected_version=version)
        call = cache.Store.future(request, metadata=AS_ALICE)
        (wins if call.exception() is None else losses).append(call)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (len(wins), len(losses)) == (1, 15)
    assert get(cache, prefix).version == wins[0].result().version


def test_an_entry_lives_for_its_ttl(cache, prefix):
    store(cache, prefix, ttl_ms=60_000)
    assert 50_000 < get(cache, prefix).remaining_ttl_ms <= 60_000
    store(cache, prefix, ttl_ms=50)
    until("the entry expired", lambda: cache.Get.future(cache_pb2.GetRequest(key=prefix), metadata=AS_ALICE).exception())


def test_ttl_0_is_the_accounts_default(cache, prefix):
    store(cache, prefix, metadata=bearer(BRIEF))
    assert 50_000 < get(cache, prefix, bearer(BRIEF)).remaining_ttl_ms <= 60_000


# Accounts


def test_keys_of_two_accounts_never_meet(cache, prefix):
    store(cache, prefix, b"alice's")
    missing(cache, prefix, AS_BOB)
    store(cache, prefix, b"bob's", metadata=AS_BOB)
    assert get(cache, prefix).val == b"alice's"
    cache.Delete(cache_pb2.DeleteRequest(key=prefix), metadata=AS_BOB)
    assert get(cache, prefix).val == b"alice's"


def test_all_tokens_of_an_account_see_the_same_keys(cache, prefix):
    store(cache, prefix, b"same")
    assert get(cache, prefix, bearer(ALICE_OLD)).val == get(cache, prefix, bearer(ALICE_READER)).val == b"same"


def test_the_token_may_come_in_the_message_of_a_store(cache, prefix):
    cache.Store(cache_pb2.StoreRequest(key=prefix, val=b"v", account_token=ALICE))
    assert get(cache, prefix).val == b"v"
    # The metadata wins.
    cache.Store(cache_pb2.StoreRequest(key=prefix, val=b"bob's", account_token=ALICE), metadata=AS_BOB)
    assert (get(cache, prefix).val, get(cache, prefix, AS_BOB).val) == (b"v", b"bob's")


def test_accounts_answers_the_account_of_a_token(accounts_service):
    by_token = lambda token: accounts_service.GetByToken(accounts_pb2.GetByTokenRequest(token=token)).account  # noqa: E731
    three = by_token(THREE_KEYS)
    assert (three.id, three.max_cache_keys, three.read_only) == ("three-keys", 3, False)
    assert (by_token(ALICE_READER).id, by_token(ALICE_READER).read_only) == ("alice", True)
    assert by_token(BRIEF).max_ttl_ms == 120_000


# Delete, Touch, Increment


def test_delete_says_whether_there_was_a_value(cache, prefix):
    version = store(cache, prefix)
    delete = lambda **fields: cache.Delete(cache_pb2.DeleteRequest(key=prefix, **fields), metadata=AS_ALICE).existed  # noqa: E731
    request = cache_pb2.DeleteRequest(key=prefix, if_version=version - 1)
    expect(refused(cache.Delete, request, metadata=AS_ALICE), "ABORTED", "VERSION_MISMATCH")
    assert delete(if_version=version) is True
    assert delete() is False
    missing(cache, prefix)


def test_touch_overwrites_extends_or_shortens(cache, prefix):
    def touch(ttl_ms, mode):
        return cache.Touch(cache_pb2.TouchRequest(key=prefix, ttl_ms=ttl_ms, mode=mode), metadata=AS_ALICE)

    first = store(cache, prefix, ttl_ms=100_000)
    answer = touch(50_000, cache_pb2.TOUCH_MODE_EXTEND_ONLY)
    assert not answer.changed and answer.version == first and answer.remaining_ttl_ms > 90_000
    answer = touch(50_000, cache_pb2.TOUCH_MODE_SHORTEN_ONLY)
    assert answer.changed and answer.version > first and answer.remaining_ttl_ms <= 50_000
    assert touch(70_000, cache_pb2.TOUCH_MODE_EXTEND_ONLY).remaining_ttl_ms > 60_000
    assert touch(0, cache_pb2.TOUCH_MODE_OVERWRITE).remaining_ttl_ms == 0
    # What does not expire counts as longest.
    assert not touch(70_000, cache_pb2.TOUCH_MODE_EXTEND_ONLY).changed
    assert get(cache, prefix).val == b"value"


def test_touch_of_a_missing_key_is_not_found(cache, prefix):
    expect(refused(cache.Touch, cache_pb2.TouchRequest(key=prefix), metadata=AS_ALICE), "NOT_FOUND", "NOT_FOUND")


def increment(cache, key, delta, **fields):
    return cache.Increment(cache_pb2.IncrementRequest(key=key, delta=delta, **fields), metadata=AS_ALICE)


def test_increment_counts_in_decimal_text(cache, prefix):
    assert increment(cache, prefix, 5).value == 5
    assert increment(cache, prefix, -7).value == -2
    assert get(cache, prefix).val == b"-2"
    store(cache, prefix, b"40")
    assert increment(cache, prefix, 2).value == 42


def test_increment_refuses_other_text_and_overflow(cache, prefix):
    store(cache, prefix, b"many")
    request = cache_pb2.IncrementRequest(key=prefix, delta=1)
    expect(refused(cache.Increment, request, metadata=AS_ALICE), "FAILED_PRECONDITION", "NOT_A_COUNTER")
    store(cache, prefix, str(2**63 - 1).encode())
    expect(refused(cache.Increment, request, metadata=AS_ALICE), "OUT_OF_RANGE", "COUNTER_OVERFLOW")
    assert get(cache, prefix).val == str(2**63 - 1).encode()


def test_a_repeated_request_id_counts_once(cache, prefix):
    first = increment(cache, prefix, 3, request_id="a")
    assert increment(cache, prefix, 4, request_id="b").value == 7
    again = increment(cache, prefix, 3, request_id="a")
    assert (again.value, again.version) == (first.value, first.version)
    assert get(cache, prefix).val == b"7"


def test_concurrent_increments_lose_nothing(cache, prefix):
    calls = [
        cache.Increment.future(cache_pb2.IncrementRequest(key=prefix, delta=1), metadata=AS_ALICE) for _ in range(500)
    ]
    assert sorted(call.result().value for call in calls) == list(range(1, 501))


# Batches


def test_a_batch_has_a_result_per_item(cache, prefix):
    items = [
        cache_pb2.BatchStoreItem(store=cache_pb2.StoreRequest(key=f"{prefix}{n}", val=b"%d" % n)) for n in range(1000)
    ]
    items.append(cache_pb2.BatchStoreItem(store=cache_pb2.StoreRequest(key="", val=b"x")))
    results = collect(cache.BatchStore(cache_pb2.BatchStoreRequest(items=items), metadata=AS_ALICE))
    assert sorted(results) == list(range(1001))
    assert all(results[n].store.version > 0 for n in range(1000))
    error = results[1000].error
    assert (error.code, error.reason, error.temporary) == (3, "KEY_INVALID", False)

    items = [cache_pb2.BatchGetItem(get=cache_pb2.GetRequest(key=f"{prefix}{n}")) for n in range(1001)]
    results = collect(cache.BatchGet(cache_pb2.BatchGetRequest(items=items), metadata=AS_ALICE))
    assert [results[n].get.val for n in range(1000)] == [b"%d" % n for n in range(1000)]
    assert (results[1000].error.code, results[1000].error.reason) == (5, "NOT_FOUND")

    items = [cache_pb2.BatchDeleteItem(delete=cache_pb2.DeleteRequest(key=f"{prefix}{n}")) for n in range(1001)]
    results = collect(cache.BatchDelete(cache_pb2.BatchDeleteRequest(items=items), metadata=AS_ALICE))
    assert [results[n].delete.existed for n in range(1001)] == [True] * 1000 + [False]


def test_batch_items_have_a_context_of_their_own(cache, prefix):
    items = [
        cache_pb2.BatchStoreItem(store=cache_pb2.StoreRequest(key=f"{prefix}{n}", val=b"v"), context=context)
        for n, context in enumerate([None, cache_pb2.CallContext(dry_run=True)])
    ]
    results = collect(cache.BatchStore(cache_pb2.BatchStoreRequest(items=items), metadata=AS_ALICE))
    assert results[0].store.version > 0
    assert results[1].store.version == 0 and not results[1].HasField("error")
    get(cache, f"{prefix}0")
    missing(cache, f"{prefix}1")


@pytest.mark.parametrize("items", [0, 10_001])
def test_a_batch_has_1_to_10000_items(cache, items):
    request = cache_pb2.BatchGetRequest(items=[cache_pb2.BatchGetItem(get=cache_pb2.GetRequest(key="k"))] * items)
    expect(refused(cache.BatchGet, request, metadata=AS_ALICE), "INVALID_ARGUMENT", "BATCH_SIZE")


def test_values_of_a_batch_may_be_more_than_one_message_holds(cache, prefix):
    for n in range(6):
        store(cache, f"{prefix}{n}", b"%d" % n * (3 << 20))
    items = [cache_pb2.BatchGetItem(get=cache_pb2.GetRequest(key=f"{prefix}{n}")) for n in range(6)]
    results = collect(cache.BatchGet(cache_pb2.BatchGetRequest(items=items), metadata=AS_ALICE))
    assert [results[n].get.val for n in range(6)] == [b"%d" % n * (3 << 20) for n in range(6)]


def collect(stream):
    results = [result for message in stream for result in message.results]
    by_index = {result.index: result for result in results}
    assert len(by_index) == len(results), "an item has one result"
    return by_index


# Dump, DeletePrefix, Clear


def fill(cache, prefix, count, metadata=AS_ALICE):
    for n in range(count):
        store(cache, f"{prefix}{n}", b"%d" % n, metadata=metadata)
    return {f"{prefix}{n}": b"%d" % n for n in range(count)}


def dump(cache, prefix="", cursor=b"", metadata=AS_ALICE):
    return list(cache.Dump(cache_pb2.DumpRequest(prefix=prefix, cursor=cursor), metadata=metadata))


def test_a_dump_streams_every_entry_once(cache, prefix):
    stored = fill(cache, prefix, 300)
    items = dump(cache, prefix)
    assert len(items) == 300
    assert {item.key: item.val for item in items} == stored
    assert all(item.version > 0 and item.remaining_ttl_ms == 0 for item in items)


def test_a_dump_goes_on_after_any_cursor(cache, prefix):
    fill(cache, prefix, 100)
    items = dump(cache, prefix)
    for place in [0, 1, 50, 98, 99]:
        assert [item.key for item in dump(cache, prefix, items[place].cursor)] == [item.key for item in items[place + 1 :]]


def test_a_dump_shows_the_callers_account_only(cache, prefix):
    fill(cache, prefix, 3)
    fill(cache, prefix, 2, AS_BOB)
    assert len(dump(cache, prefix, metadata=AS_BOB)) == 2
    assert len(dump(cache, prefix, metadata=bearer(ALICE_READER))) == 3


def test_delete_prefix_removes_what_begins_with_it(cache, prefix):
    fill(cache, f"{prefix}a/", 2500)
    fill(cache, f"{prefix}b/", 3)
    request = cache_pb2.DeletePrefixRequest(prefix=f"{prefix}a/")
    progress = list(cache.DeletePrefix(request, metadata=AS_ALICE))
    assert [message.done for message in progress] == [False] * (len(progress) - 1) + [True]
    counts = [message.deleted for message in progress]
    assert counts == sorted(counts) and counts[-1] == 2500
    assert len(dump(cache, prefix)) == 3


def test_clear_removes_the_callers_account_only(cache, prefix):
    fill(cache, prefix, 3)
    fill(cache, prefix, 5, bearer(BRIEF))
    assert list(cache.Clear(cache_pb2.ClearRequest(), metadata=bearer(BRIEF)))[-1].done
    assert dump(cache, metadata=bearer(BRIEF)) == []
    assert len(dump(cache, prefix)) == 3


# Stats


def test_stats_tell_usage_limits_and_the_replica(cache, prefix):
    as_three = bearer(THREE_KEYS)
    list(cache.Clear(cache_pb2.ClearRequest(), metadata=as_three))
    store(cache, prefix, b"12345", metadata=as_three)
    stats = cache.Stats(cache_pb2.StatsRequest(), metadata=as_three)
    assert (stats.account_id, stats.keys, stats.bytes, stats.max_cache_keys) == ("three-keys", 1, len(prefix) + 5, 3)
    assert stats.replica.version.count(".") == 2
    assert stats.replica.entries >= 1 and stats.replica.connections >= 1
    assert 0 < stats.replica.memory_bytes <= stats.replica.capacity_bytes == 256 << 20


# Compression


@pytest.mark.parametrize("compression", ["gzip"])
def test_compressed_messages_are_understood(cache, prefix, compression):
    import grpc

    val = b"again and again " * 10_000
    cache.Store(
        cache_pb2.StoreRequest(key=prefix, val=val), metadata=AS_ALICE, compression=getattr(grpc.Compression, compression.capitalize())
    )
    assert get(cache, prefix).val == val
