"""Bad configuration: exit 64 and a sentence that says what to do. Good: the effective configuration, without secrets."""

import json
import subprocess

import pytest

from support import accounts
from support.replica import BIN, CLEAN


def serve(*flags, environment=None):
    words = [BIN, "serve", *map(str, flags)]
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, env=CLEAN | (environment or {})
    )


@pytest.fixture
def good(tmp_path):
    file = tmp_path / "accounts.json"
    accounts.write(file)
    return file


def refused(answer, *words):
    """Exit 64; the sentence, in which the words stand."""
    assert answer.returncode == 64, answer
    sentence = answer.stderr.strip()
    assert "panicked" not in sentence
    for word in words:
        assert word in sentence, sentence
    return sentence


def test_neither_file_nor_service_of_accounts():
    refused(serve(), "--accounts")


def test_both_file_and_service_of_accounts(good):
    refused(serve("--accounts", good, "--accounts-url", "http://127.0.0.1:1"), "--accounts")


def test_an_accounts_file_that_is_not_there(tmp_path):
    refused(serve("--accounts", tmp_path / "missing.json"), "missing.json")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"accounts": [{"id": "A", "tokens": []}]}',
        '{"accounts": [{"id": "tutorial", "tokens": []}]}',
        '{"accounts": [{"id": "a", "tokens": [], "max_keys": 3}]}',
    ],
)
def test_an_accounts_file_that_is_wrong(tmp_path, text):
    file = tmp_path / "wrong.json"
    file.write_text(text)
    refused(serve("--accounts", file), "wrong.json")


def test_a_token_in_the_accounts_file_is_not_echoed(tmp_path):
    file = tmp_path / "plain.json"
    file.write_text(json.dumps({"accounts": [{"id": "a", "tokens": [accounts.ALICE]}]}))
    answer = serve("--accounts", file)
    sentence = refused(answer, "larder account hash")
    assert accounts.ALICE not in sentence + answer.stdout


@pytest.mark.parametrize(
    "flags",
    [
        ["--listen", "nowhere"],
        ["--capacity", "much"],
        ["--max-ttl", "long"],
        ["--max-connections", "-1"],
        ["--max-connections", "0"],
        ["--no-such-flag"],
        ["--tls-cert", "/dev/null"],
        ["--tls-client-ca", "/dev/null"],
        ["--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"],
        ["--tls-cert", "/dev/null", "--tls-key", "/dev/null"],
        ["--log", "no=such=filter"],
    ],
    ids=" ".join,
)
def test_a_flag_that_is_wrong(good, flags):
    refused(serve("--accounts", good, *flags))


def test_a_variable_that_is_wrong_is_named(good):
    sentence = refused(serve("--accounts", good, environment={"LARDER_BURST": "many"}))
    assert "burst" in sentence.lower()


def test_an_address_that_is_taken(good, replica):
    refused(serve("--accounts", good, "--listen", replica.target), replica.target)


def test_the_effective_configuration_is_told_and_no_token(replica):
    log = replica.log()
    assert "LARDER_CAPACITY" in log and "256MiB" in log
    assert "LARDER_MAX_STREAMS" in log
    for secret in [accounts.ALICE, accounts.BOB]:
        assert secret not in log
