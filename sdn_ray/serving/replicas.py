"""Models behind Ray Serve: each in a deployment, whose replicas draw batches of requests."""

import asyncio
import io
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from PIL import Image
from ray import serve

from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.resources import places, use_device
from sdn_ray.errors import UserError
from sdn_ray.models.export import Origin
from sdn_ray.models.folded import fold_batch_norms
from sdn_ray.models.image_generators import method_of
from sdn_ray.models.together import Drawing, draw_together
from sdn_ray.runs.loading import read_model

_STARTS = 3  # of a replica, before its deployment is given up
_PATIENCE = 600.0  # seconds, until all have started
_LAST_SECONDS = 30.0  # until all have ended
_LOOK_SECONDS = 0.2
_FIRST = Drawing(("a flower",))


@dataclass(frozen=True)
class ServedModel:
    """What is known of a model without its weights."""

    name: str
    folder: str  # or URI
    method: str
    image_size: int
    samples: int  # of a forward pass
    noise_dim: int
    origin: Origin


def served_model(name: str, folder: str) -> ServedModel:
    """Read a model once, before anything is started.

    Raises:
        UserError: it cannot be read, or reads no captions.
    """
    model = read_model(folder)
    generator = model.generator
    return ServedModel(
        name,
        folder,
        method_of(generator),
        generator.image_size,
        generator.samples,
        generator.noise_dim,
        model.origin,
    )


class Drawer:
    """A replica: one model on a GPU, or on as many cores as it was given.

    Args:
        folder: of the model, or its URI.
    """

    def __init__(self, folder: str) -> None:
        self._model = read_model(folder).to(use_device())
        fold_batch_norms(self._model.generator)
        torch.backends.cudnn.benchmark = False  # hardly a batch is as large as another
        self._failed = False
        draw_together(self._model, [_FIRST])  # what a first batch would have to wait for

    async def draw(self, drawings: Sequence[Drawing]) -> tuple[list[list[bytes]], float]:
        """Each one's pictures as PNG files, and the seconds that they took."""
        start = time.perf_counter()
        drawn = await asyncio.to_thread(self._draw, drawings)
        return drawn, time.perf_counter() - start

    def _draw(self, drawings: Sequence[Drawing]) -> list[list[bytes]]:
        try:
            drawn = draw_together(self._model, drawings)
        except Exception:
            self._failed = True
            raise
        return [[png(image) for image in pictures] for pictures in drawn]

    async def check_health(self) -> None:
        """Ray Serve asks every second, and starts a replica again for which this raises.

        Raises:
            Exception: it cannot draw any more, whatever it is asked for.
        """
        if self._failed:
            await asyncio.to_thread(draw_together, self._model, [_FIRST])
            self._failed = False


def png(image: np.ndarray) -> bytes:
    """A picture as a file, (height, width, 3) uint8; rather soon than small."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png", compress_level=1)
    return file.getvalue()


def replica_resources(
    models: int, replicas: int | None, cores: float | None
) -> tuple[int, dict[str, float]]:
    """How many replicas each model has, and what each of them reserves of the joined cluster.

    Args:
        models: how many there are.
        replicas: of each; None: as many as there are GPUs for each model; on CPUs two where there
            are cores for them: one draws while the other's pictures go out.
        cores: of each replica; None: as many as all of them can have.

    Raises:
        UserError: the nodes of the cluster have not as many cores.
    """
    # A replica lives on one node, so the nodes count, not their sum.
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    pairs = not gpus and places(nodes, 1, 0) >= 2 * models
    count = replicas or (2 if pairs else max(1, gpus // models))
    wanted = count * models
    # Ray takes a part of a GPU from a single one, and counts ten-thousandths.
    gpu = _part(max(1, math.ceil(wanted / gpus))) if gpus else 0
    most = max(int(node.get("CPU", 0)) for node in nodes)
    shares = [*range(most, 0, -1), *(_part(parts) for parts in range(2, wanted + 1))]
    fitting = next((share for share in shares if places(nodes, share, gpu) >= wanted), None)
    share = fitting if cores is None else cores
    if share is None or not share > 0 or places(nodes, share, gpu) < wanted:
        expected = "fewer" if fitting is None else f"at most {fitting:g} cores for each"
        raise UserError(
            f"--cpus_per_replica: found {cores}, --replicas {count} of {models} models; expected "
            f"{expected}: the cluster's nodes have {[node.get('CPU', 0) for node in nodes]} cores"
        )
    return count, {"CPU": share} | ({"GPU": gpu} if gpus else {})


def _part(parts: int) -> float:
    return int(1e4 / parts) / 1e4


def deploy(
    models: Sequence[ServedModel],
    replicas: int,
    resources: dict[str, float],
    prefix: str,
    terminal: Terminal,
) -> dict[str, Any]:
    """Start the replicas of all models, and wait for them.

    Args:
        models: by different names.
        replicas: of each.
        resources: of a replica.
        prefix: of the names of their applications, of which a cluster has each once.
        terminal: where it says how many are ready.

    Returns:
        By the models' names the handles of their deployments, which requests take.

    Raises:
        UserError: replicas cannot be started, or the cluster has had no room for them for long.
    """
    deployment = serve.deployment(
        max_ongoing_requests=1,  # a batch: the next one is better off with another replica
        max_constructor_retry_count=_STARTS,
        health_check_period_s=1,
        graceful_shutdown_timeout_s=10,
        num_replicas=replicas,
        ray_actor_options={"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)},
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    targets = [
        serve.RunTarget(
            deployment(Drawer).bind(model.folder), name=f"{prefix}-{place}", route_prefix=None
        )
        for place, model in enumerate(models)
    ]
    handles = serve.run_many(targets, wait_for_applications_running=False)
    _wait(models, prefix, terminal)
    return {model.name: handle for model, handle in zip(models, handles, strict=True)}


def _wait(models: Sequence[ServedModel], prefix: str, terminal: Terminal) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        found = [_application(place, prefix) for place in range(len(models))]
        for model, application in zip(models, found, strict=True):
            if application is not None and application.status == "DEPLOY_FAILED":
                reasons = [one.message for one in application.deployments.values()]
                raise UserError(
                    f"--model: {model.folder} was read here, but its replicas do not start "
                    f"({' '.join(' '.join(reasons).split())[-400:]}); expected a folder that all "
                    "nodes see"
                )
        ready = sum(one is not None and one.status == "RUNNING" for one in found)
        if ready == len(models):
            return
        if time.monotonic() > end:
            raise UserError(
                f"--model: {ready} of {len(models)} models have started within "
                f"{_PATIENCE / 60:g} minutes; expected a cluster with as many free cores and GPUs"
            )
        terminal.progress("starting the models' replicas", ready, len(models))
        time.sleep(_LOOK_SECONDS)


def _application(place: int, prefix: str) -> Any:
    """What Ray Serve says of an application; None: it does not know it, or not yet."""
    return serve.status().applications.get(f"{prefix}-{place}")


def models_alive(models: Sequence[ServedModel], prefix: str) -> dict[str, bool]:
    """Of each model whether a replica answers."""
    alive = {}
    for place, model in enumerate(models):
        found = _application(place, prefix)
        states = [one.replica_states for one in found.deployments.values()] if found else []
        alive[model.name] = any(one.get("RUNNING", 0) for one in states)
    return alive


def remove(count: int, prefix: str) -> None:
    """End the applications that `deploy` has begun to start, and Serve if nobody else has any."""
    for place in range(count):
        if _application(place, prefix):
            serve.delete(f"{prefix}-{place}", _blocking=False)
    end = time.monotonic() + _LAST_SECONDS
    while any(_application(place, prefix) for place in range(count)) and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
    if not serve.status().applications:
        serve.shutdown()
