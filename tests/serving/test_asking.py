import asyncio

import pytest
from ray.exceptions import ActorDiedError

from sdn_ray.models.together import Drawing
from sdn_ray.serving import asking
from sdn_ray.serving.asking import MOST_WAITING, Replicas, UnavailableError


class Handle:
    """In the place of a deployment's: gives or raises one after another, or draws."""

    def __init__(self, *answers, seconds=0.001):
        self.answers, self.batches, self.seconds = list(answers), [], seconds
        self.draw = self

    async def remote(self, drawings=()):
        self.batches.append(list(drawings))
        answer = self.answers.pop(0) if self.answers else 0.02
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, float):
            return answer
        await asyncio.sleep(answer)
        return [[drawn(one.seed)] * one.pictures for one in drawings], self.seconds


def drawn(seed):
    return f"red {seed}".encode()


def drawing(seed, pictures=1):
    return Drawing(("red",), pictures, seed)


def together(handle, drawings, at_once=1, patience=5.0):
    """What all of them get who ask at once."""

    async def ask():
        replicas = Replicas({"sdn": handle}, dict, at_once, patience)
        asked = [replicas.draw("sdn", one) for one in drawings]
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


def test_those_who_ask_at_once_are_drawn_in_one_batch():
    handle = Handle()
    drawings = [drawing(seed) for seed in range(5)]
    assert together(handle, drawings) == [[drawn(seed)] for seed in range(5)]
    assert handle.batches == [drawings]


def test_a_batch_has_no_more_pictures_than_a_pass_but_for_one_request():
    handle = Handle()
    drawings = [drawing(0), *(drawing(seed, 60) for seed in range(1, 4)), drawing(4, 200)]
    drawings.append(drawing(5))
    found = together(handle, drawings)
    assert [len(pictures) for pictures in found] == [1, 60, 60, 60, 200, 1]
    first, rest = drawings[:1], drawings[1:]  # how long pictures take is not known before
    assert handle.batches == [first, rest[:2], rest[2:3], rest[3:4], rest[4:]]


def test_a_batch_is_no_longer_than_two_seconds_and_who_would_wait_in_vain_is_told_so():
    handle = Handle(seconds=1.0)

    async def ask():
        replicas = Replicas({"sdn": handle}, dict, 1, patience=8)
        await replicas.draw("sdn", drawing(0, 5))  # five pictures a second
        asked = [replicas.draw("sdn", drawing(seed, 4)) for seed in range(12)]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(ask())
    assert [len(batch) for batch in handle.batches[1:3]] == [2, 4]  # of 8 pictures: then 8 a second
    told = [str(one) for one in found if isinstance(one, UnavailableError)]
    assert told == ["too many wait for sdn; try again soon"]  # 44 pictures wait, of 5 a second


@pytest.mark.parametrize("at_once", [1, 3])
def test_as_many_batches_are_on_their_way_as_there_are_replicas(at_once):
    class Counting(Handle):
        now = most = 0

        async def remote(self, drawings):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            self.now -= 1
            return [[b""] for _ in drawings], 0.01

    handle = Counting()
    together(handle, [drawing(seed, 100) for seed in range(4)], at_once)
    assert handle.most == at_once


def test_free_replicas_share_what_waits():
    handle = Handle()
    together(handle, [drawing(seed) for seed in range(5)], at_once=2)
    assert [[one.seed for one in batch] for batch in handle.batches] == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize(("seconds", "batches"), [(0.001, [5]), (1.0, [3, 2])])
def test_but_not_what_one_draws_in_no_time(seconds, batches):
    handle = Handle(seconds=seconds)

    async def ask():
        replicas = Replicas({"sdn": handle}, dict, 2, 5.0)
        await replicas.draw("sdn", drawing(0, 4))  # now it is known how long pictures take
        await asyncio.gather(*(replicas.draw("sdn", drawing(seed)) for seed in range(5)))

    asyncio.run(ask())
    assert [len(batch) for batch in handle.batches[1:]] == batches


def test_who_has_left_has_no_share():
    handle = Handle()

    async def ask():
        replicas = Replicas({"sdn": handle}, dict, 2, 5.0)
        asked = [asyncio.ensure_future(replicas.draw("sdn", drawing(seed))) for seed in range(4)]
        await asyncio.sleep(0)
        for one in asked[:2]:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(ask())
    assert [[one.seed for one in batch] for batch in handle.batches] == [[2], [3]]


def test_a_batch_waits_until_nobody_comes_any_more(monkeypatch):
    monkeypatch.setattr(asking, "_PAUSE", 1.0)
    monkeypatch.setattr(asking, "_GATHERING", 3600.0)
    handle = Handle()

    async def ask():
        replicas = Replicas({"sdn": handle}, dict, 1, 60.0)
        asked = []
        for seed in range(3):
            asked.append(asyncio.ensure_future(replicas.draw("sdn", drawing(seed))))
            await asyncio.sleep(0.6)
        await asyncio.gather(*asked)

    asyncio.run(ask())
    assert [len(batch) for batch in handle.batches] == [3]


def test_but_the_first_does_not_wait_as_long_as_somebody_comes(monkeypatch):
    monkeypatch.setattr(asking, "_PAUSE", 3600.0)
    assert together(Handle(), [drawing(0)]) == [[drawn(0)]]


def test_requests_that_a_replica_took_with_it_are_asked_again():
    handle = Handle(ActorDiedError())
    assert together(handle, [drawing(0), drawing(1)]) == [[drawn(0)], [drawn(1)]]
    assert handle.batches[0] == handle.batches[1]


def test_but_not_for_ever():
    handle = Handle(ActorDiedError(), ActorDiedError())
    for error in together(handle, [drawing(0), drawing(1)]):
        assert isinstance(error, UnavailableError)
        assert str(error) == "sdn is being started again; try again soon"
    assert len(handle.batches) == 2


def test_whoever_comes_when_too_many_wait_is_told_so():
    found = together(Handle(), [drawing(seed) for seed in range(MOST_WAITING + 2)])
    errors = [one for one in found if isinstance(one, UnavailableError)]
    assert [str(error) for error in errors] == ["too many wait for sdn; try again soon"] * 2
    assert found[:MOST_WAITING] == [[drawn(seed)] for seed in range(MOST_WAITING)]


def test_nobody_waits_for_ever_and_the_next_ones_are_drawn():
    handle = Handle(60.0)

    async def ask():
        replicas = Replicas({"sdn": handle}, dict, 1, 0.1)
        with pytest.raises(UnavailableError, match=r"sdn has not answered within 0.1 seconds"):
            await replicas.draw("sdn", drawing(0))
        return await replicas.draw("sdn", drawing(1))

    assert asyncio.run(ask()) == [drawn(1)]


def test_a_fault_of_the_program_is_no_silence():
    (error,) = together(Handle(ValueError("shapes")), [drawing(0)])
    assert isinstance(error, ValueError)


def test_replicas_are_looked_at_once_a_second():
    looked = []

    def states():
        looked.append(1)
        return {"sdn": True, "gan": False}

    async def ask():
        replicas = Replicas({"sdn": Handle()}, states, 1)
        return [await replicas.alive() for _ in range(5)]

    assert asyncio.run(ask()) == [{"sdn": True, "gan": False}] * 5
    assert len(looked) == 1
