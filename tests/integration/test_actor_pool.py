import time
from unittest.mock import Mock

import pytest
import ray

from sdn_ray.cluster import actor_pool
from sdn_ray.cluster.actor_pool import stream
from sdn_ray.errors import UserError


class Doubler:
    """Doubles numbers, and refuses some."""

    def __init__(self, refused, at_once=False):
        if at_once:
            raise UserError(f"found {refused} at once")
        self.refused = refused

    def __call__(self, rows):
        for row in rows:
            if row["x"] == self.refused:
                raise UserError(f"found {row['x']}, expected another number")
            if row["x"] == -1:
                raise ZeroDivisionError
        return [2 * row["x"] for row in rows]


def batches(count):
    return [[{"x": 3 * i + j} for j in range(3)] for i in range(count)]


def test_results_come_in_the_order_of_the_batches(ray_cluster):
    results = list(stream(batches(12), Doubler, {"refused": None}, terminal=Mock()))
    assert results == [[2 * row["x"] for row in batch] for batch in batches(12)]
    assert list(stream([], Doubler, {"refused": None}, terminal=Mock())) == []


def test_a_users_error_in_an_actor_is_the_users_error(ray_cluster):
    with pytest.raises(UserError, match=r"^found 7, expected another number$"):
        list(stream(batches(4), Doubler, {"refused": 7}, terminal=Mock()))
    with pytest.raises(UserError, match=r"^found 7 at once$"):
        list(stream(batches(4), Doubler, {"refused": 7, "at_once": True}, terminal=Mock()))


def test_an_error_leaves_no_actor_on_the_cores(ray_cluster):
    """Not even while somebody looks at the traceback."""
    with pytest.raises(UserError) as kept:
        list(stream(batches(40), Doubler, {"refused": 7}, terminal=Mock()))
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "an actor still has its core"
        time.sleep(0.1)
    assert kept.traceback


def test_another_error_is_not_taken_for_one(ray_cluster):
    with pytest.raises(Exception, match="ZeroDivisionError"):
        list(stream([[{"x": -1}]], Doubler, {"refused": None}, terminal=Mock()))


def test_a_few_rows_are_worked_off_in_this_process(monkeypatch):
    monkeypatch.setattr(actor_pool, "start_ray", None)  # no cluster is asked for
    results = list(stream(batches(4), Doubler, {"refused": None}, in_process=12, terminal=Mock()))
    assert results == [[2 * row["x"] for row in batch] for batch in batches(4)]
    with pytest.raises(UserError, match=r"^found 7, expected another number$"):
        list(stream(batches(4), Doubler, {"refused": 7}, in_process=12, terminal=Mock()))
    with pytest.raises(TypeError):  # one row more than a few, and a wish for actors
        list(stream(batches(4), Doubler, {"refused": None}, in_process=11, terminal=Mock()))
    with pytest.raises(TypeError):
        list(stream(batches(4), Doubler, {"refused": None}, 1, in_process=12, terminal=Mock()))
