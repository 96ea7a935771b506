import asyncio

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import DeploymentUnavailableError

from sdn_ray.models.together import Drawing
from sdn_ray.serving.asking import MOST_WAITING, Replicas, UnavailableError


class Handle:
    """In the place of a deployment's: gives or raises one after another, or draws."""

    def __init__(self, *answers):
        self.answers, self.batches = list(answers), []
        self.draw = self.alive = self

    async def remote(self, drawings=()):
        self.batches.append(list(drawings))
        answer = self.answers.pop(0) if self.answers else 0.02
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, float):
            return answer
        await asyncio.sleep(answer)
        return [[f"{one.captions[0]} {one.seed}".encode()] for one in drawings]


def drawing(seed, pictures=1):
    return Drawing(("red",), pictures, seed)


def together(handle, drawings, at_once=1, patience=5.0):
    """What all of them get who ask at once."""

    async def ask():
        replicas = Replicas({"sdn": handle}, at_once, patience)
        asked = [replicas.draw("sdn", one) for one in drawings]
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


def test_those_who_ask_at_once_are_drawn_in_one_batch():
    handle = Handle()
    drawings = [drawing(seed) for seed in range(5)]
    assert together(handle, drawings) == [[f"red {seed}".encode()] for seed in range(5)]
    assert handle.batches == [drawings]


def test_a_batch_has_no_more_pictures_than_a_pass_but_for_one_request():
    handle = Handle()
    drawings = [drawing(seed, 60) for seed in range(3)] + [drawing(3, 200), drawing(4)]
    found = together(handle, drawings)
    assert found == [[f"red {seed}".encode()] for seed in range(5)]
    assert handle.batches == [drawings[:2], drawings[2:3], drawings[3:4], drawings[4:]]


@pytest.mark.parametrize("at_once", [1, 3])
def test_as_many_batches_are_on_their_way_as_there_are_replicas(at_once):
    class Counting(Handle):
        now = most = 0

        async def remote(self, drawings):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            self.now -= 1
            return [[b""] for _ in drawings]

    handle = Counting()
    together(handle, [drawing(seed, 100) for seed in range(4)], at_once)
    assert handle.most == at_once


def test_requests_that_a_replica_took_with_it_are_asked_again():
    handle = Handle(ActorDiedError())
    assert together(handle, [drawing(0), drawing(1)]) == [[b"red 0"], [b"red 1"]]
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
    assert found[:MOST_WAITING] == [[f"red {seed}".encode()] for seed in range(MOST_WAITING)]


def test_nobody_waits_for_ever_and_the_next_ones_are_drawn():
    handle = Handle(60.0)

    async def ask():
        replicas = Replicas({"sdn": handle}, 1, 0.1)
        with pytest.raises(UnavailableError, match=r"sdn has not answered within 0.1 seconds"):
            await replicas.draw("sdn", drawing(0))
        return await replicas.draw("sdn", drawing(1))

    assert asyncio.run(ask()) == [b"red 1"]


def test_a_fault_of_the_program_is_no_silence():
    (error,) = together(Handle(ValueError("shapes")), [drawing(0)])
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("answer", "alive"),
    [
        (True, True),
        (ActorDiedError(), False),
        (DeploymentUnavailableError("gone"), False),
        (60.0, False),
    ],
)
def test_health_is_that_of_each_model(answer, alive):
    replicas = Replicas({"sdn": Handle(answer), "gan": Handle(True)}, 1, patience=0.2)
    assert asyncio.run(replicas.alive()) == {"sdn": alive, "gan": True}
