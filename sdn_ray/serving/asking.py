"""Requests to the replicas: asked again once where one has died, given up after a while."""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from sdn_ray.models.together import Drawing

PATIENCE = 20.0  # seconds that a request is waited for
_TRIES = 2


class UnavailableError(Exception):
    """No replica has answered; the message says why, to whoever asked."""


class Replicas:
    """The replicas of all models.

    Args:
        handles: of their deployments, by name.
        patience: seconds.
    """

    def __init__(self, handles: Mapping[str, Any], patience: float = PATIENCE) -> None:
        self._handles, self._patience = handles, patience

    async def draw(self, model: str, drawing: Drawing) -> list[bytes]:
        """The pictures of a drawing, PNG.

        Args:
            model: its name.
            drawing: checked.

        Raises:
            UnavailableError: too many wait, or none has answered in time.
        """
        try:
            async with asyncio.timeout(self._patience):
                return await self._asked(model, drawing)
        except TimeoutError as error:
            raise UnavailableError(
                f"{model} has not answered within {self._patience:g} seconds; try again"
            ) from error

    async def _asked(self, model: str, drawing: Drawing) -> list[bytes]:
        for _ in range(_TRIES):
            try:
                return await self._handles[model].draw.remote(drawing)
            except BackPressureError as error:
                raise UnavailableError(f"too many wait for {model}; try again soon") from error
            except (RayActorError, ReplicaUnavailableError):
                continue  # it has died with the request: another one draws the same
            except DeploymentUnavailableError:
                break
        raise UnavailableError(f"{model} is being started again; try again soon")

    async def alive(self) -> dict[str, bool]:
        """Of each model whether a replica answers."""
        alive = await asyncio.gather(*map(self._alive, self._handles.values()))
        return dict(zip(self._handles, alive, strict=True))

    async def _alive(self, handle: Any) -> bool:
        try:
            async with asyncio.timeout(self._patience / 4):
                return await handle.alive.remote()
        except (
            TimeoutError,
            RayActorError,
            BackPressureError,
            DeploymentUnavailableError,
            ReplicaUnavailableError,
        ):
            return False
