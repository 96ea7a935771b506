"""Starting or joining Ray, sizing what is asked of it, and using what was given."""

import logging
import os
from collections.abc import Mapping

import ray
import ray.data

from sdn_ray.config import TrainingConfig
from sdn_ray.errors import UserError


def start_ray() -> None:
    """Join the cluster that the environment names, else start one on this machine."""
    if ray.is_initialized():
        return
    # Workers speak to the terminal through a `Monitor`; their own logs stay in the dashboard.
    # Without an address Ray would look for the last cluster of this machine, and wait for minutes
    # where that one has died.
    address = os.environ.get("RAY_ADDRESS", "local")
    ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    if len(ray.nodes()) == 1:
        # Every idle process of Ray's wakes 100 times a second, which a worker on all cores feels;
        # the one that watches for nodes that are about to go has nothing to say of a single node.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray Data's progress bars would fight with ours for the terminal, and it warns of their lack.
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def worker_resources(
    config: TrainingConfig, *, trials: int = 1, gpus_per_worker: float | None = None
) -> dict[str, float]:
    """What each training worker reserves: CPU and GPU.

    Args:
        config: how many workers there are, and on what.
        trials: trainings that run at a time, among whom the cluster is shared equally.
        gpus_per_worker: such as 0.5. Default: 1 where the cluster has enough of them.

    Raises:
        UserError: when the cluster can never meet it.
    """
    workers = config.workers * trials
    asked = f"training.workers: found {config.workers}"
    if trials > 1:
        asked += f" in each of {trials} trials at a time (--concurrent)"
    # A worker lives on one node, so the nodes count, not their sum.
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = _most_resources(nodes)
    cpus, gpus = int(most.get("CPU", 0)), most.get("GPU", 0)
    wanted = gpus_per_worker or 1
    use_gpu = gpus_per_worker != 0 and config.device != "cpu" and gpus >= workers * wanted
    if (config.device == "gpu" and gpus_per_worker == 0) or (
        config.device == "cpu" and gpus_per_worker
    ):
        raise UserError(
            f"--gpus_per_worker: found {gpus_per_worker:g} beside training.device {config.device}; "
            "expected the two to agree"
        )
    if not use_gpu and (config.device == "gpu" or gpus_per_worker):
        raise UserError(f"{asked}, {wanted:g} GPUs each, but the cluster has {gpus:g} GPUs")
    if workers > cpus:
        raise UserError(f"{asked}, but the cluster has {cpus} CPUs; each worker needs at least one")

    def fits(share: int) -> bool:
        places = [int(node.get("CPU", 0) // share) for node in nodes]
        if use_gpu:
            free = [int(node.get("GPU", 0) / wanted) for node in nodes]
            places = [min(pair) for pair in zip(places, free, strict=True)]
        return sum(places) >= workers

    share = config.cpus_per_worker or next((s for s in range(cpus, 0, -1) if fits(s)), 1)
    if not fits(share) and not _grows():
        raise UserError(
            f"training.cpus_per_worker: {share} for each of {workers} workers"
            + (f" with {wanted:g} GPUs each" if use_gpu else "")
            + f", but the cluster's nodes have {[int(node.get('CPU', 0)) for node in nodes]} CPUs"
        )
    return {"CPU": share, "GPU": wanted} if use_gpu else {"CPU": share}


def _most_resources(nodes: list[dict[str, float]]) -> dict[str, float]:
    """All that the cluster has, or may grow to."""
    names = {name for node in nodes for name in node}
    now = {name: sum(node.get(name, 0) for node in nodes) for name in names}
    later = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    return {name: max(now.get(name, 0), later.get(name, 0)) for name in names | set(later)}


def _grows() -> bool:
    """Whether an autoscaler may still add nodes."""
    return bool(ray._private.state.state.get_max_resources_from_cluster_config())


def use_device(resources: Mapping[str, float] | None = None) -> str:
    """Where this process computes: a GPU, or the CPU with as many threads as it has cores.

    Args:
        resources: of this process. Default: those that Ray gave a task or an actor. The process of
            a command has all of its machine.
    """
    import torch  # here, since an actor that only reads files need not wait for it

    if resources is None and not (
        ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    ):
        return "cuda" if torch.cuda.is_available() else "cpu"
    if resources is None:
        resources = ray.get_runtime_context().get_assigned_resources()
    if resources.get("GPU"):
        return "cuda"
    torch.set_num_threads(max(1, int(resources.get("CPU", 1))))
    return "cpu"
