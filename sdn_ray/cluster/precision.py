"""What `training.precision: auto` comes to on the machines that train, settled once for a run."""

from collections.abc import Mapping
from dataclasses import replace

import ray

from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.tasks import ray_runner
from sdn_ray.config import ExperimentConfig
from sdn_ray.methods.precision import fast_precision


def settle_precision(
    config: ExperimentConfig, resources: Mapping[str, float], terminal: Terminal
) -> ExperimentConfig:
    """The experiment with a precision of its own instead of `auto`.

    It is settled before anything is written: a run that goes on, on whatever machine, goes on in
    the precision in which it began.

    Args:
        config: the experiment.
        resources: of each worker.
        terminal: is told what was chosen, and warned of bf16 where it is slow.
    """
    asked = config.training.precision
    if asked == "fp32":
        return config
    # With a single node and no GPU this process sees the CPU that the workers have.
    elsewhere = "GPU" in resources or len(ray.nodes()) > 1
    device = "cuda" if "GPU" in resources else "cpu"
    terminal.wait("asking which precision is fast")
    fast = ray_runner(resources)(fast_precision, device) if elsewhere else fast_precision(device)
    where = "GPU" if device == "cuda" else "CPU"
    if asked == "auto":
        why = "which this {} computes fast" if fast == "bf16" else "since this {} has no fast bf16"
        terminal.line(f"precision: {fast}, {why.format(where)}")
        return replace(config, training=replace(config.training, precision=fast))
    if fast == "fp32":
        terminal.line(
            f"training.precision: this {where} computes bf16 number by number, many times slower "
            "than fp32; --training.precision fp32 or auto is faster"
        )
    return config
