"""Replicas come, go and are replaced under stock clients, which notice nothing (F1 and F3)."""

import pytest

from support.checker import Checker
from support.dev import Dev


@pytest.fixture
def cluster(tmp_path):
    with Dev(tmp_path, 3) as cluster:
        yield cluster


def test_scaling_3_to_5_to_2_shows_to_no_stock_client(cluster):
    with Checker([cluster.address(number) for number in range(5)]) as checker:
        cluster.run("scale", 5)
        checker.goes_on()
        cluster.run("scale", 2)
        checker.stop()
        checker.nothing_happened()


def test_scaling_shows_to_no_stock_client_that_asks_one_replica(cluster):
    with Checker([cluster.address(0)]) as checker:
        cluster.run("scale", 5)
        checker.goes_on()
        cluster.run("scale", 2)
        checker.stop()
        checker.nothing_happened()


def test_three_rolling_restarts_show_to_no_stock_client(cluster):
    # Surge takes the numbers after those that are there, and then these again.
    with Checker([cluster.address(number) for number in range(6)]) as checker:
        for _ in range(3):
            cluster.run("restart")
            checker.goes_on()
        checker.stop()
        checker.nothing_happened()
