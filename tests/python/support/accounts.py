"""The tenants of the tests, and the accounts file that holds them."""

import hashlib
import json


def token(name):
    """A token as a client holds it; long enough to be taken for random."""
    return f"larder_test_{name}_0123456789abcdef0123456789abcdef"


ALICE, ALICE_READER, ALICE_OLD = token("alice"), token("alice_reader"), token("alice_old")
BOB = token("bob")
THREE_KEYS, THOUSAND_BYTES = token("three_keys"), token("thousand_bytes")
ONE_PER_SECOND, PIPELINE_150 = token("one_per_second"), token("pipeline_150")
BRIEF = token("brief")


def _hash(value):
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()


def account(id, *tokens, readers=(), **limits):
    entries = [{"hash": _hash(t)} for t in tokens]
    entries += [{"hash": _hash(t), "access": "read-only"} for t in readers]
    return {"id": id, "tokens": entries, **limits}


EVERYONE = [
    account("alice", ALICE, ALICE_OLD, readers=[ALICE_READER]),
    account("bob", BOB),
    account("three-keys", THREE_KEYS, max_cache_keys=3),
    account("thousand-bytes", THOUSAND_BYTES, max_bytes=1000),
    account("one-per-second", ONE_PER_SECOND, requests_per_second=1, burst=1),
    account("pipeline-150", PIPELINE_150, requests_per_second=150, burst=5),
    account("brief", BRIEF, default_ttl_ms=60_000, max_ttl_ms=120_000),
]


def write(path, accounts=EVERYONE):
    """As an operator does it: under a temporary name, then renamed."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"accounts": list(accounts)}))
    temporary.rename(path)
