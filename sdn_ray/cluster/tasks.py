"""Work as Ray tasks with the resources of one training worker, or in this process."""

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

Runner = Callable[..., Any]  # calls a function with its arguments, in this process or elsewhere


def ray_runner(resources: Mapping[str, float]) -> Runner:
    """Work is done by Ray tasks with the resources of one training worker."""

    def run(function: Callable[..., Any], *arguments: Any) -> Any:
        return ray.get(ray_task(function, resources).remote(*arguments))

    return run


def run_locally(function: Callable[..., Any], *arguments: Any) -> Any:
    """Work is done in this process, which has its resources already."""
    return function(*arguments)


def ray_task(function: Callable[..., Any], resources: Mapping[str, float]) -> Any:
    """A Ray task with the resources of one training worker, not taken from its caller's."""
    return ray.remote(
        num_cpus=resources["CPU"],
        num_gpus=resources.get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(
            # None is documented ("no placement group"), and Ray's annotation does not know it.
            placement_group=None  # type: ignore[arg-type]
        ),
    )(function)
