"""Requests to the replicas: in batches, asked again where a replica has died, given up in time."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

from sdn_ray.models.drawing import BATCH
from sdn_ray.models.together import Drawing

PATIENCE = 20.0  # seconds that a request is waited for
MOST_WAITING = 200  # requests of a model
_PAUSE = 0.002  # seconds in which nobody comes, after which what waits is sent
_GATHERING = 0.03  # seconds that a free replica waits for that, at most
_BATCH_SECONDS = 2.0  # that a batch is to take, at most
_SHARE_SECONDS = 0.02  # that it is to take at least, before another replica has a part of it
_FIRST_BATCH = 16  # pictures, before it is known how long they take
_HEALTH_SECONDS = 1.0  # for which what was seen of the replicas holds
_TRIES = 2
_AWAY = (RayActorError, ReplicaUnavailableError)

Pictures = list[bytes]  # PNG
_Waiting = tuple[Drawing, asyncio.Future[Pictures]]


class UnavailableError(Exception):
    """No replica has answered; the message says why, to whoever asked."""


class Replicas:
    """The replicas of all models.

    Args:
        handles: of their deployments, by name.
        states: says of each model whether it has a replica; it takes a moment.
        at_once: batches of a model that are on their way, at most: as many as it has replicas.
        patience: seconds.
    """

    def __init__(
        self,
        handles: Mapping[str, Any],
        states: Callable[[], dict[str, bool]],
        at_once: int,
        patience: float = PATIENCE,
    ) -> None:
        self._patience, self._states = patience, states
        self._alive: dict[str, bool] = {}
        self._looked = float("-inf")
        self._queues = {
            name: _Queue(name, handle, at_once, patience) for name, handle in handles.items()
        }

    async def draw(self, model: str, drawing: Drawing) -> Pictures:
        """The pictures of a drawing.

        Args:
            model: its name.
            drawing: checked.

        Raises:
            UnavailableError: too many wait, or none has answered in time.
        """
        try:
            async with asyncio.timeout(self._patience):
                return await self._queues[model].draw(drawing)
        except TimeoutError as error:
            raise UnavailableError(_late(model, self._patience)) from error

    async def alive(self) -> dict[str, bool]:
        """Of each model whether it has a replica."""
        if time.monotonic() > self._looked + _HEALTH_SECONDS:
            self._alive = await asyncio.to_thread(self._states)
            self._looked = time.monotonic()
        return self._alive


class _Queue:
    """The requests of a model: those that come while its replicas draw are the next batch.

    Ray Serve would gather them in the replicas, but a call of it takes milliseconds of a core (50
    clients had 94 small pictures a second, and have 350): so there are few calls.
    """

    def __init__(self, model: str, handle: Any, at_once: int, patience: float) -> None:
        self._model, self._handle, self._patience = model, handle, patience
        self._free = self._at_once = at_once
        self._rate: float | None = None  # pictures a second of a replica
        self._waiting: deque[_Waiting] = deque()
        self._gathering = False
        self._first = self._last = 0.0  # when that has begun, and when the last one has come
        self._calls: set[asyncio.Task[None]] = set()

    async def draw(self, drawing: Drawing) -> Pictures:
        """As `Replicas.draw`, for as long as one waits."""
        if self._full():
            raise UnavailableError(f"too many wait for {self._model}; try again soon")
        answer: asyncio.Future[Pictures] = asyncio.get_running_loop().create_future()
        self._waiting.append((drawing, answer))
        self._gather()
        return await answer

    def _full(self) -> bool:
        """Whether whoever comes now would wait in vain."""
        if len(self._waiting) >= MOST_WAITING:
            return True
        if self._rate is None:
            return False
        pictures = sum(drawing.pictures for drawing, _ in self._waiting)
        return pictures > self._rate * self._at_once * self._patience

    def _gather(self) -> None:
        """Send what waits as soon as nobody comes any more.

        Who was answered together asks anew together, and a large batch costs less than two.
        """
        self._last = asyncio.get_running_loop().time()
        if not self._gathering:
            self._gathering, self._first = True, self._last
            self._look()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        due = min(self._last + _PAUSE, self._first + _GATHERING)
        if loop.time() < due:
            loop.call_at(due, self._look)
        else:
            self._gathering = False
            self._send()

    def _send(self) -> None:
        while self._free:
            batch = self._batch()
            if not batch:
                return
            self._free -= 1
            call = asyncio.create_task(self._call(batch))
            self._calls.add(call)  # or it could be collected as garbage
            call.add_done_callback(self._calls.discard)

    def _batch(self) -> list[_Waiting]:
        """What waits, as much of it as is soon drawn; not that of those who have left.

        Where several replicas are free, they share it.
        """
        waiting = sum(drawing.pictures for drawing, answer in self._waiting if not answer.done())
        share = math.ceil(waiting / self._free)
        if self._rate is None:
            most = float(min(share, _FIRST_BATCH))
        else:
            share = max(share, math.ceil(self._rate * _SHARE_SECONDS))
            most = min(self._rate * _BATCH_SECONDS, share, BATCH)
        batch: list[_Waiting] = []
        pictures = 0
        while self._waiting:
            drawing, answer = self._waiting[0]
            if not answer.done():
                pictures += drawing.pictures
                if batch and pictures > most:
                    break
                batch.append(self._waiting[0])
            self._waiting.popleft()
        return batch

    async def _call(self, batch: list[_Waiting]) -> None:
        try:
            drawn = await self._drawn([drawing for drawing, _ in batch])
            for (_, answer), pictures in zip(batch, drawn, strict=True):
                if not answer.done():
                    answer.set_result(pictures)
        except Exception as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        finally:
            self._free += 1
            self._gather()

    async def _drawn(self, drawings: Sequence[Drawing]) -> list[Pictures]:
        try:
            async with asyncio.timeout(self._patience):
                for _ in range(_TRIES):
                    try:
                        drawn, seconds = await self._handle.draw.remote(drawings)
                    except _AWAY:
                        continue  # it has died with the batch: another one draws the same
                    self._rate = sum(map(len, drawn)) / seconds
                    return drawn
        except TimeoutError as error:
            raise UnavailableError(_late(self._model, self._patience)) from error
        except DeploymentUnavailableError:
            pass
        raise UnavailableError(f"{self._model} is being started again; try again soon")


def _late(model: str, patience: float) -> str:
    return f"{model} has not answered within {patience:g} seconds; try again"
