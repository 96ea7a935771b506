"""Starting or joining Ray, sizing what is asked of it, and using what was given."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence

import ray
import ray.data

from sdn_ray.cluster.progress import Terminal
from sdn_ray.config import TrainingConfig
from sdn_ray.errors import UserError

_STARTED: set[str] = set()  # addresses of the Rays that `start_ray` has not joined but started


def start_ray(terminal: Terminal) -> None:
    """Join the cluster that the environment names, else start one on this machine."""
    if ray.is_initialized():
        return
    # Workers speak to the terminal through a `Monitor`; their own logs stay in the dashboard.
    # Without an address Ray would look for the last cluster of this machine, and wait for minutes
    # where that one has died.
    address = os.environ.get("RAY_ADDRESS", "local")
    terminal.wait("starting Ray" if address == "local" else f"joining the Ray cluster at {address}")
    # That a token guards the new cluster, as is Ray's default, needs no warning of four lines.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    if address == "local":
        _STARTED.add(ray.get_runtime_context().gcs_address)
    if len(ray.nodes()) == 1:
        # Every idle process of Ray's wakes 100 times a second, which a worker on all cores feels;
        # the one that watches for nodes that are about to go has nothing to say of a single node.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray Data's progress bars would fight with ours for the terminal, and it warns of their lack.
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def stop_ray(terminal: Terminal) -> None:
    """End a Ray that `start_ray` has started; it takes seconds.

    Another goes on: that of ``RAY_ADDRESS``, and one that a script has begun before it called us.
    """
    if started_here():
        terminal.wait("stopping Ray")
        ray.shutdown()


def started_here() -> bool:
    """Whether `start_ray` has started this Ray, which nobody else uses."""
    return ray.is_initialized() and ray.get_runtime_context().gcs_address in _STARTED


Node = Mapping[str, float]  # what a node has, by resource


def worker_resources(
    config: TrainingConfig, *, trials: int = 1, gpus_per_worker: float | None = None
) -> dict[str, float]:
    """What each training worker reserves: CPU and GPU.

    Where the cluster has GPUs, workers take them unless the user says otherwise, and each takes as
    many of its node's cores as belong to its GPU; on CPUs they share the cores equally.

    Args:
        config: how many workers there are, and on what.
        trials: trainings that run at a time, among whom the cluster is shared equally.
        gpus_per_worker: such as 0.5, or 0 for none. Default: 1.

    Raises:
        UserError: when the cluster can never meet it.
    """
    workers = config.workers * trials
    asked = f"training.workers: found {config.workers}"
    if trials > 1:
        asked += f" in each of {trials} trials at a time (--concurrent)"
    # A worker lives on one node, so the nodes count, not their sum.
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    later = _later_nodes(workers)
    gpus = max(sum(node.get("GPU", 0) for node in nodes) for nodes in (alive, later))
    cpus = max(int(sum(node.get("CPU", 0) for node in nodes)) for nodes in (alive, later))
    wanted = gpus_per_worker or 1
    if (config.device == "gpu" and gpus_per_worker == 0) or (
        config.device == "cpu" and gpus_per_worker
    ):
        raise UserError(
            f"--gpus_per_worker: found {gpus_per_worker:g} beside training.device {config.device}; "
            "expected the two to agree"
        )
    insisted = config.device == "gpu" or bool(gpus_per_worker)
    use_gpu = config.device != "cpu" and gpus_per_worker != 0 and (gpus > 0 or insisted)
    if use_gpu and gpus < workers * wanted:
        raise UserError(
            f"{asked}, {wanted:g} GPUs each, but the cluster has {gpus:g} GPUs; expected fewer, "
            + ("a smaller --gpus_per_worker, " if trials > 1 else "")
            + "or --training.device cpu"
        )
    if workers > cpus:
        raise UserError(f"{asked}, but the cluster has {cpus} CPUs; each worker needs at least one")
    gpu = wanted if use_gpu else 0

    def fits(share: int) -> bool:
        return max(places(alive, share, gpu), places(later, share, gpu)) >= workers

    share = config.cpus_per_worker or _cpu_share(alive + later, gpu, cpus, fits)
    if not fits(share) and not later:  # an autoscaler may add what is missing
        raise UserError(
            f"training.cpus_per_worker: {share} for each of {workers} workers"
            + (f" with {wanted:g} GPUs each" if use_gpu else "")
            + f", but the cluster's nodes have {[int(node.get('CPU', 0)) for node in alive]} CPUs"
        )
    return {"CPU": share, "GPU": wanted} if use_gpu else {"CPU": share}


def places(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """How many workers that reserve so much the nodes hold together."""
    places = 0
    for node in nodes:
        own = int(node.get("CPU", 0) // cpus)
        places += min(own, int(node.get("GPU", 0) / gpus)) if gpus else own
    return places


def _cpu_share(nodes: Sequence[Node], gpus: float, most: int, fits: Callable[[int], bool]) -> int:
    """The most cores a worker can have, and with a GPU no more than belong to that."""
    if gpus:
        by_gpu = [int(n.get("CPU", 0) * gpus / n["GPU"]) for n in nodes if n.get("GPU", 0) >= gpus]
        most = min(by_gpu, default=most)
    return next((share for share in range(most, 0, -1) if fits(share)), 1)


def _later_nodes(most: int) -> list[Node]:
    """The nodes that an autoscaler may come to have, at most so many of a kind."""
    cluster = ray._private.state.state.get_cluster_config()
    groups = cluster.node_group_configs if cluster else ()
    return [
        dict(group.resources)
        for group in groups
        for _ in range(min(group.max_count if group.max_count >= 0 else most, most))
    ]


def runs_on(
    resources: Mapping[str, float], workers: int = 1, trials: int = 1, who: str = "worker"
) -> str:
    """What a command says at its start of where it computes."""
    cores = f"{resources['CPU']:g} core{'' if resources['CPU'] == 1 else 's'}"
    gpu = resources.get("GPU")
    each = f"{gpu:g} GPU{'' if gpu == 1 else 's'} and {cores}" if gpu else f"{cores} and no GPU"
    count = f"{workers} {who}{'' if workers == 1 else 'es' if who.endswith('s') else 's'}"
    if trials > 1:
        count = f"{trials} trials at a time, {count} in each"
    return f"running on {'GPUs' if gpu else 'the CPU'}: {count}, {each}" + (
        " for each" if workers * trials > 1 else ""
    )


def runs_here() -> str:
    """What a command says at its start of work that it does itself."""
    return f"running on {'a GPU' if _own_resources().get('GPU') else 'the CPU'}: this process alone"


def use_device(resources: Mapping[str, float] | None = None) -> str:
    """Where this process computes: a GPU, or the CPU with as many threads as it has cores.

    Args:
        resources: of this process. Default: those that Ray gave a task or an actor. The process of
            a command has all of its machine.
    """
    import torch  # here, since an actor that only reads files need not wait for it

    from sdn_ray.methods.precision import use_full_float32

    if resources is None:
        resources = _own_resources()
    if resources.get("GPU"):
        use_full_float32()
        torch.backends.cudnn.benchmark = True  # shapes stay the same from step to step
        return "cuda"
    if "CPU" not in resources:
        return "cpu"
    torch.set_num_threads(max(1, int(resources["CPU"])))
    return "cpu"


def _own_resources() -> Mapping[str, float]:
    """What Ray gave this task or actor; what its machine has, where Ray did not start it."""
    if ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE:
        return {"CPU": 1} | ray.get_runtime_context().get_assigned_resources()
    import torch

    return {"GPU": 1} if torch.cuda.is_available() else {}
