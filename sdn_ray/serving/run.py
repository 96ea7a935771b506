"""What `sdn_ray.serve` does once its options are known."""

import logging
import uuid
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from sdn_ray.cluster.resources import runs_on, start_ray, started_here, stop_ray
from sdn_ray.errors import UserError
from sdn_ray.runs.command_line import name_and_path
from sdn_ray.runs.experiment import absolute
from sdn_ray.runs.terminal import Display
from sdn_ray.scoring.retrieval_index import retrieval_index
from sdn_ray.serving.asking import Replicas
from sdn_ray.serving.neighbours import Neighbours
from sdn_ray.serving.page import draw_app
from sdn_ray.serving.replicas import (
    ServedModel,
    deploy,
    models_alive,
    remove,
    replica_resources,
    served_model,
)
from sdn_ray.web.guard import Guard, Limits, check_host, given_token, is_local
from sdn_ray.web.server import address, bound_socket, serve


def serve_models(options: Any) -> None:
    """Serve the page until the process is told to stop.

    Args:
        options: of the command.

    Raises:
        UserError: a model, the address, the token or the reference is not as expected.
    """
    token = given_token(options.token)
    check_host(options.host, token)
    if options.reference is not None and options.teacher is None:
        raise UserError(
            "--reference: found without --teacher, expected both: nearest images are "
            "found by a fine-tuned VGG"
        )
    with Display() as display:
        display.wait("reading the models")
        models = [served_model(*one) for one in named_models(options.model)]
        found = bound_socket(options.host, options.port)
        start_ray(display)
        neighbours = _neighbours(options, models, display)
        count, resources = replica_resources(
            len(models), options.replicas, options.cpus_per_replica
        )
        display.line(runs_on(resources, count * len(models), who="replica"))
    prefix = f"sdn_ray-{uuid.uuid4().hex[:8]}"  # a cluster may have several pages
    try:
        with Display() as display:
            handles = deploy(models, count, resources, prefix, display)
        replicas = Replicas(handles, lambda: models_alive(models, prefix), count)
        app = Guard(
            draw_app(models, replicas, neighbours),
            local=is_local(options.host),
            token=token,
            limits=Limits(rate=options.requests_per_second, burst=4 * options.requests_per_second),
        )
        print(f"open {address(options.host, found, token)} (Ctrl-C ends it)", flush=True)
        serve(app, found)
    finally:
        with Display() as display:
            if not started_here():  # others go on in this cluster
                display.wait("stopping the replicas")
                # It would tell as an error that the loop in which handles were used has ended.
                logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
                remove(len(models), prefix)
            stop_ray(display)


def named_models(given: Sequence[str]) -> list[tuple[str, str]]:
    """Name and folder of each ``--model``, DIR or NAME=DIR, where a URI may be instead of DIR.

    Raises:
        UserError: two have the same name, or a name is none.
    """
    models = []
    for text in given:
        name, folder = name_and_path(text)
        if "://" not in folder:
            folder = absolute(folder, "--model")
        path = PurePosixPath(folder)
        models.append((name or (path.parent.name if path.name == "model" else path.name), folder))
    names = [name for name, _ in models]
    if len(set(names)) < len(names):
        raise UserError(
            f"--model: found the names {', '.join(names)}; expected each once. NAME=DIR "
            "names a model"
        )
    return models


def _neighbours(options: Any, models: Sequence[ServedModel], display: Display) -> Neighbours | None:
    if options.reference is None:
        return None
    size = max(model.image_size for model in models)
    origins = {model.name: model.origin for model in models}
    return Neighbours(retrieval_index(options, size, origins, display))
