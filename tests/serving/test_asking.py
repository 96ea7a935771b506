import asyncio

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from sdn_ray.models.together import Drawing
from sdn_ray.serving.asking import Replicas, UnavailableError

DRAWING = Drawing(("a red flower",))


class Handle:
    """In the place of a deployment's: gives or raises one after another."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.draw = self.alive = self

    async def remote(self, *given):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        return answer


def busy():
    return BackPressureError(num_queued_requests=200, max_queued_requests=200)


def ask(*answers, patience=5.0):
    replicas = Replicas({"sdn": Handle(*answers)}, patience)
    return asyncio.run(replicas.draw("sdn", DRAWING))


def test_a_request_that_a_replica_took_with_it_is_asked_again():
    assert ask(ActorDiedError(), [b"png"]) == [b"png"]


def test_but_not_for_ever():
    with pytest.raises(UnavailableError, match="sdn is being started again; try again soon"):
        ask(ActorDiedError(), ActorDiedError(), [b"png"])


def test_whoever_comes_when_too_many_wait_is_told_so():
    with pytest.raises(UnavailableError, match="too many wait for sdn"):
        ask(busy(), [b"png"])


def test_nobody_waits_for_ever():
    with pytest.raises(UnavailableError, match=r"sdn has not answered within 0.05 seconds"):
        ask(60.0, patience=0.05)


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
    replicas = Replicas({"sdn": Handle(answer), "gan": Handle(True)}, patience=0.2)
    assert asyncio.run(replicas.alive()) == {"sdn": alive, "gan": True}
