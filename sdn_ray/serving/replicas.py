"""Models behind Ray Serve: each in a deployment, whose replicas draw batches of requests."""

import asyncio
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from PIL import Image
from ray import serve

from sdn_ray.cluster.resources import use_device
from sdn_ray.errors import UserError, one_line
from sdn_ray.models.export import Origin
from sdn_ray.models.image_generators import method_of
from sdn_ray.models.together import Drawing, draw_together
from sdn_ray.runs.loading import read_model

_STARTS = 3  # of a replica, before its deployment is given up


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
        self._turn = asyncio.Lock()
        draw_together(self._model, [Drawing(("a flower",))])  # what a first batch has to wait for

    async def draw(self, drawings: Sequence[Drawing]) -> list[list[bytes]]:
        """Each one's pictures as PNG files."""
        async with self._turn:
            return await asyncio.to_thread(self._draw, drawings)

    def _draw(self, drawings: Sequence[Drawing]) -> list[list[bytes]]:
        drawn = draw_together(self._model, drawings)
        return [[png(image) for image in pictures] for pictures in drawn]

    async def alive(self) -> bool:
        """Whether requests are answered."""
        return True


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
        replicas: of each; None: as many as there are GPUs for each model, on CPUs one.
        cores: of each replica; None: an equal share of them all.

    Raises:
        UserError: the cluster has not as many cores.
    """
    total = ray.cluster_resources()
    gpus, cpus = int(total.get("GPU", 0)), total.get("CPU", 0)
    count = replicas or max(1, gpus // models)
    places = count * models
    share = cores or _share(cpus, places)
    if share * places > cpus or share <= 0:
        raise UserError(
            f"--cpus_per_replica: found {share:g} for {count} replicas of {models} models, "
            f"expected at most {_share(cpus, places):g}: the cluster has {cpus:g} cores"
        )
    return count, {"CPU": share} | ({"GPU": min(1, _share(gpus, places))} if gpus else {})


def _share(whole: float, parts: int) -> float:
    """An equal share: whole ones where there are, else what Ray can count, a ten-thousandth."""
    return whole // parts if whole >= parts else int(1e4 * whole / parts) / 1e4


def deploy(
    models: Sequence[ServedModel], replicas: int, resources: dict[str, float], prefix: str
) -> dict[str, Any]:
    """Start the replicas of all models, and wait for them.

    Args:
        models: by different names.
        replicas: of each.
        resources: of a replica.
        prefix: of the names of their applications, of which a cluster has each once.

    Returns:
        By the models' names what `remove` and requests take: handles of their deployments.

    Raises:
        UserError: replicas cannot be started.
    """
    deployment = serve.deployment(
        max_ongoing_requests=2,  # a batch, and a word on its health
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
    try:
        handles = serve.run_many(targets)
    except RuntimeError as error:
        raise UserError(
            "--model: the models were read here, but their replicas do not start "
            f"({one_line(error, 400)}); expected folders that all nodes see"
        ) from error
    return {model.name: handle for model, handle in zip(models, handles, strict=True)}


def remove(count: int, prefix: str) -> None:
    """End the applications that `deploy` has started for so many models."""
    for place in range(count):
        serve.delete(f"{prefix}-{place}")
