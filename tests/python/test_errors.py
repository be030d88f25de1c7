"""Each error that a request can meet, with its code and all its details."""

import pytest
from larder.v1 import accounts_pb2, cache_pb2

from support.accounts import ALICE, ALICE_READER, BRIEF, ONE_PER_SECOND, THOUSAND_BYTES, THREE_KEYS, token
from support.failures import expect, refused
from support.replica import bearer

Store, Get = cache_pb2.StoreRequest, cache_pb2.GetRequest
MAX_ENTRY = (4 << 20) - (64 << 10)

# method, request, token, code, reason, the field that BadRequest blames
WRONG_REQUESTS = {
    "empty key": ("Store", Store(val=b"v"), "KEY_INVALID", "key"),
    "empty key of a get": ("Get", Get(), "KEY_INVALID", "key"),
    "empty key of a delete": ("Delete", cache_pb2.DeleteRequest(), "KEY_INVALID", "key"),
    "empty key of a touch": ("Touch", cache_pb2.TouchRequest(), "KEY_INVALID", "key"),
    "empty key of an increment": ("Increment", cache_pb2.IncrementRequest(), "KEY_INVALID", "key"),
    "too long a key": ("Store", Store(key="k" * 4097), "KEY_INVALID", "key"),
    "too long a key of a get": ("Get", Get(key="k" * 4097), "KEY_INVALID", "key"),
    "too large an entry": ("Store", Store(key="k", val=bytes(MAX_ENTRY)), "ENTRY_TOO_LARGE", "val"),
    "unknown condition": ("Store", Store(key="k", condition=9), "FIELD_INVALID", "condition"),
    "a version without its condition": ("Store", Store(key="k", expected_version=1), "FIELD_INVALID", "expected_version"),
    "a condition without its version": ("Store", Store(key="k", condition=3), "FIELD_INVALID", "expected_version"),
    "unknown mode": ("Touch", cache_pb2.TouchRequest(key="k", mode=9), "FIELD_INVALID", "mode"),
    "too long a request id": (
        "Increment",
        cache_pb2.IncrementRequest(key="k", request_id="r" * 65),
        "REQUEST_ID_TOO_LONG",
        "request_id",
    ),
    "a TTL beyond the server's maximum": ("Store", Store(key="k", ttl_ms=2**63), "TTL_TOO_LONG", "ttl_ms"),
    "no cursor": ("Dump", cache_pb2.DumpRequest(cursor=b"made up"), "CURSOR_INVALID", "cursor"),
    "too long a prefix": ("Dump", cache_pb2.DumpRequest(prefix="p" * 4097), "FIELD_INVALID", "prefix"),
    "empty prefix": ("DeletePrefix", cache_pb2.DeletePrefixRequest(), "FIELD_INVALID", "prefix"),
}


@pytest.mark.parametrize("what", WRONG_REQUESTS)
def test_a_wrong_request_is_told_which_field_is_wrong(cache, what):
    method, request, reason, field = WRONG_REQUESTS[what]
    failure = refused(getattr(cache, method), request, metadata=bearer(ALICE))
    expect(failure, "INVALID_ARGUMENT", reason)
    assert [violation.field for violation in failure.bad_request.field_violations] == [field]
    assert not failure.error.temporary and failure.pushback is None
    assert failure.order == ["larder.v1.Error", "google.rpc.ErrorInfo", "google.rpc.BadRequest"]


def test_the_limits_are_told_as_facts(cache):
    failure = refused(cache.Get, Get(key="k" * 5000), metadata=bearer(ALICE))
    assert dict(failure.info.metadata) == {"bytes": "5000", "limit": "4096"}


def test_a_ttl_over_the_accounts_maximum_is_refused(cache):
    for method, request in [
        (cache.Store, Store(key="k", ttl_ms=120_001)),
        (cache.Touch, cache_pb2.TouchRequest(key="k", ttl_ms=120_001)),
        (cache.Increment, cache_pb2.IncrementRequest(key="k", ttl_ms=120_001)),
    ]:
        failure = expect(refused(method, request, metadata=bearer(BRIEF)), "INVALID_ARGUMENT", "TTL_TOO_LONG")
        assert dict(failure.info.metadata) == {"asked_ms": "120001", "limit": "120000"}
    cache.Store(Store(key="k", ttl_ms=120_000), metadata=bearer(BRIEF))


CALLS = {
    "Store": Store(key="k", val=b"v"),
    "Get": Get(key="k"),
    "Delete": cache_pb2.DeleteRequest(key="k"),
    "Touch": cache_pb2.TouchRequest(key="k"),
    "Increment": cache_pb2.IncrementRequest(key="k", delta=1),
    "BatchGet": cache_pb2.BatchGetRequest(items=[cache_pb2.BatchGetItem(get=Get(key="k"))]),
    "BatchStore": cache_pb2.BatchStoreRequest(items=[cache_pb2.BatchStoreItem(store=Store(key="k"))]),
    "BatchDelete": cache_pb2.BatchDeleteRequest(items=[cache_pb2.BatchDeleteItem(delete=cache_pb2.DeleteRequest(key="k"))]),
    "Clear": cache_pb2.ClearRequest(),
    "DeletePrefix": cache_pb2.DeletePrefixRequest(prefix="p"),
    "Dump": cache_pb2.DumpRequest(),
    "Pipeline": iter([]),
    "Stats": cache_pb2.StatsRequest(),
}


@pytest.mark.parametrize("method", CALLS)
def test_every_method_wants_a_token(cache, method):
    failure = expect(refused(getattr(cache, method), CALLS[method]), "UNAUTHENTICATED", "TOKEN_MISSING")
    assert not failure.error.temporary


@pytest.mark.parametrize("method", CALLS)
def test_every_method_refuses_an_unknown_token_without_echoing_it(cache, method):
    wrong = token("stranger")
    failure = refused(getattr(cache, method), CALLS[method], metadata=bearer(wrong))
    expect(failure, "UNAUTHENTICATED", "TOKEN_UNKNOWN")
    assert wrong not in str(failure)


def test_accounts_refuses_an_unknown_token(accounts_service):
    request = accounts_pb2.GetByTokenRequest(token=token("stranger"))
    expect(refused(accounts_service.GetByToken, request), "UNAUTHENTICATED", "TOKEN_UNKNOWN")


@pytest.mark.parametrize("method", ["Store", "Delete", "Touch", "Increment", "Clear", "DeletePrefix"])
def test_a_read_only_token_changes_nothing(cache, method):
    failure = refused(getattr(cache, method), CALLS[method], metadata=bearer(ALICE_READER))
    expect(failure, "PERMISSION_DENIED", "TOKEN_READ_ONLY")


@pytest.mark.parametrize("method", ["BatchStore", "BatchDelete"])
def test_a_read_only_token_changes_nothing_in_a_batch(cache, method):
    call = getattr(cache, method)(CALLS[method], metadata=bearer(ALICE_READER))
    try:
        results = [result for message in call for result in message.results]
    except Exception as error:  # refused as a whole is as good
        assert error.code().name == "PERMISSION_DENIED"
    else:
        assert [result.error.reason for result in results] == ["TOKEN_READ_ONLY"]


def test_over_the_quota_of_keys(cache, prefix):
    mine = bearer(THREE_KEYS)
    list(cache.Clear(cache_pb2.ClearRequest(), metadata=mine))
    for n in range(3):
        cache.Store(Store(key=f"{prefix}{n}", val=b"v"), metadata=mine)
    failure = refused(cache.Store, Store(key=f"{prefix}3", val=b"v"), metadata=mine)
    expect(failure, "FAILED_PRECONDITION", "QUOTA_KEYS")
    (violation,) = failure.quota.violations
    assert (violation.subject, violation.quota_metric, violation.quota_value) == ("account:three-keys", "max_cache_keys", 3)
    assert dict(failure.info.metadata) == {"account": "three-keys", "limit": "3"}
    # Overwriting needs no room; a delete gives its own back.
    cache.Store(Store(key=f"{prefix}0", val=b"other"), metadata=mine)
    cache.Delete(cache_pb2.DeleteRequest(key=f"{prefix}0"), metadata=mine)
    cache.Store(Store(key=f"{prefix}3", val=b"v"), metadata=mine)
    assert cache.Stats(cache_pb2.StatsRequest(), metadata=mine).keys == 3


def test_over_the_quota_of_bytes(cache, prefix):
    mine = bearer(THOUSAND_BYTES)
    list(cache.Clear(cache_pb2.ClearRequest(), metadata=mine))
    room = 1000 - len(prefix)
    failure = refused(cache.Store, Store(key=prefix, val=bytes(room + 1)), metadata=mine)
    expect(failure, "FAILED_PRECONDITION", "QUOTA_BYTES")
    (violation,) = failure.quota.violations
    assert (violation.quota_metric, violation.quota_value) == ("max_bytes", 1000)
    cache.Store(Store(key=prefix, val=bytes(room)), metadata=mine)
    expect(refused(cache.Store, Store(key="k", val=b""), metadata=mine), "FAILED_PRECONDITION", "QUOTA_BYTES")


def test_an_expired_entry_gives_its_slot_back(cache, prefix):
    mine = bearer(THREE_KEYS)
    list(cache.Clear(cache_pb2.ClearRequest(), metadata=mine))
    for n in range(3):
        cache.Store(Store(key=f"{prefix}{n}", val=b"v", ttl_ms=1), metadata=mine)
    from support.waiting import until

    until("a key expired", lambda: cache.Store.future(Store(key="new"), metadata=mine).exception() is None)


def test_over_the_accounts_rate(cache):
    mine = bearer(ONE_PER_SECOND)
    failures = [cache.Stats.future(cache_pb2.StatsRequest(), metadata=mine).exception() for _ in range(8)]
    from support.failures import failure_of

    failure = failure_of([error for error in failures if error is not None][-1])
    expect(failure, "RESOURCE_EXHAUSTED", "ACCOUNT_RATE")
    assert failure.error.temporary and 0 < failure.pushback <= 1000
    (violation,) = failure.quota.violations
    assert (violation.quota_metric, violation.quota_value) == ("requests_per_second", 1)


def test_no_method_of_that_name(stock):
    for path in ["/larder.v1.Cache/Nonsense", "/larder.v1.Nonsense/Get", "/nonsense", "/larder.v1.Cache/"]:
        failure = refused(stock.unary_unary(path), b"", metadata=bearer(ALICE))
        expect(failure, "UNIMPLEMENTED", "METHOD_UNKNOWN")


@pytest.mark.parametrize("name,value", [("dry-run", "2"), ("dry-run", "yes"), ("authorization", "Basic abc"), ("authorization", "Bearer ")])
def test_malformed_metadata_is_refused(cache, name, value):
    metadata = [(name, value)] if name == "authorization" else bearer(ALICE) + [(name, value)]
    failure = refused(cache.Get, Get(key="k"), metadata=metadata)
    assert failure.error.reason in ("METADATA_INVALID", "TOKEN_MISSING"), failure
