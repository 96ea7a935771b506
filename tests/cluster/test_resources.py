"""What each worker reserves, on clusters of any shape; and whose Ray is ended."""

from unittest.mock import MagicMock, Mock

import pytest
import ray
from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

from sdn_ray.cluster import resources as module
from sdn_ray.cluster.resources import runs_on, start_ray, stop_ray, worker_resources
from sdn_ray.config import TrainingConfig
from sdn_ray.errors import UserError


@pytest.fixture
def nodes(monkeypatch):
    """Stands for a cluster: its nodes' resources, and the kinds of nodes an autoscaler may add."""

    def has(*resources, later=()):
        found = [{"Alive": True, "Resources": node} for node in resources]
        groups = [NodeGroupConfig(resources=node, max_count=count) for node, count in later]
        config = ClusterConfig(node_group_configs=groups) if later else None
        monkeypatch.setattr(ray, "nodes", lambda: found)
        monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: config)

    return has


def resources(trials=1, gpus=None, **options):
    return worker_resources(TrainingConfig(**options), trials=trials, gpus_per_worker=gpus)


def test_cpus_are_shared_equally_within_nodes(nodes):
    nodes({"CPU": 8.0})
    assert resources() == {"CPU": 8}
    assert resources(workers=3) == {"CPU": 2}
    assert resources(trials=4) == {"CPU": 2}
    assert resources(workers=2, trials=2) == {"CPU": 2}
    assert resources(cpus_per_worker=3) == {"CPU": 3}
    nodes({"CPU": 5.0}, {"CPU": 3.0})
    assert resources(workers=2) == {"CPU": 3}
    assert resources(workers=3) == {"CPU": 2}


def test_gpus_whole_and_in_parts(nodes):
    nodes({"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0})
    # A GPU comes with its part of the node's cores: the other GPU can still be used.
    assert resources() == {"CPU": 4, "GPU": 1}
    assert resources(workers=2) == {"CPU": 4, "GPU": 1}  # both on the first node
    assert resources(trials=4, gpus=0.5) == {"CPU": 2, "GPU": 0.5}
    assert resources(gpus=2) == {"CPU": 8, "GPU": 2}
    assert resources(cpus_per_worker=6) == {"CPU": 6, "GPU": 1}
    assert resources(gpus=0) == {"CPU": 8}
    assert resources(device="cpu") == {"CPU": 8}


def test_nodes_of_several_shapes(nodes):
    nodes({"CPU": 4.0}, {"CPU": 16.0, "GPU": 8.0}, {"CPU": 12.0, "GPU": 2.0})
    assert resources(workers=10) == {"CPU": 2, "GPU": 1}  # 16 cores over 8, and 12 over 2
    nodes({"CPU": 1.0, "GPU": 4.0}, {"CPU": 3.0})
    assert resources() == {"CPU": 1, "GPU": 1}  # fewer cores than GPUs


def test_gpus_are_never_passed_over_in_silence(nodes):
    nodes({"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0})
    with pytest.raises(
        UserError,
        match=r"workers: found 4, 1 GPUs each, but the cluster has 2 GPUs; expected fewer, "
        r"or --training.device cpu",
    ):
        resources(workers=4)
    with pytest.raises(UserError, match=r"4 trials .* 2 GPUs; .*a smaller --gpus_per_worker"):
        resources(trials=4)
    assert resources(workers=4, device="cpu") == {"CPU": 4}


def test_what_can_never_be_is_refused(nodes):
    nodes({"CPU": 4.0, "GPU": 1.0})
    with pytest.raises(UserError, match="workers: found 5, but the cluster has 4 CPUs"):
        resources(workers=5, device="cpu")
    with pytest.raises(
        UserError, match=r"found 2 in each of 3 trials at a time .*, but the cluster has 4 CPUs"
    ):
        resources(workers=2, trials=3, gpus=0)
    with pytest.raises(UserError, match="workers: found 2, 1 GPUs each, but the cluster has 1 GPU"):
        resources(workers=2, device="gpu")
    with pytest.raises(UserError, match=r"0\.75 GPUs each, but the cluster has 1 GPUs"):
        resources(trials=2, gpus=0.75)
    with pytest.raises(UserError, match=r"cpus_per_worker: 3 for each of 2 workers.*\[4\] CPUs"):
        resources(workers=2, cpus_per_worker=3, device="cpu")


def test_an_autoscaler_may_still_add_what_is_missing(nodes):
    gpu_node = ({"CPU": 8, "GPU": 1}, 4)
    nodes({"CPU": 2}, later=[gpu_node])
    assert resources(workers=4, device="gpu", cpus_per_worker=8) == {"CPU": 8, "GPU": 1}
    with pytest.raises(UserError, match="5, 1 GPUs each, but the cluster has 4 GPUs"):
        resources(workers=5, device="gpu")
    # From no node at all, a worker's share is that of the node it will have.
    nodes({"CPU": 0.0}, later=[gpu_node])
    assert resources(workers=4) == {"CPU": 8, "GPU": 1}
    nodes({"CPU": 0.0}, later=[({"CPU": 8, "GPU": 2}, -1)])  # as many as are asked for
    assert resources(workers=6) == {"CPU": 4, "GPU": 1}
    nodes({"CPU": 0.0}, later=[({"CPU": 16}, 2)])
    assert resources(workers=4) == {"CPU": 8}


def test_what_a_command_says_of_where_it_runs():
    assert runs_on({"CPU": 2}) == "running on the CPU: 1 worker, 2 cores and no GPU"
    assert runs_on({"CPU": 1}, 2) == "running on the CPU: 2 workers, 1 core and no GPU for each"
    assert runs_on({"CPU": 4, "GPU": 0.5}, 2, 3) == (
        "running on GPUs: 3 trials at a time, 2 workers in each, 0.5 GPUs and 4 cores for each"
    )


@pytest.fixture
def some_ray(monkeypatch):
    """Stands for Ray in this process: which address it has, if it runs."""
    fake = MagicMock()
    fake.nodes.return_value = [1, 2]
    monkeypatch.setattr(module, "ray", fake)
    monkeypatch.setattr(module, "_STARTED", set())
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def runs(address):
        fake.is_initialized.return_value = address is not None
        fake.get_runtime_context().gcs_address = address
        return fake

    return runs


def test_a_ray_that_was_there_before_goes_on(some_ray):
    fake = some_ray("a script's")
    start_ray(Mock())
    stop_ray(Mock())
    fake.init.assert_not_called()
    fake.shutdown.assert_not_called()


def test_a_cluster_that_was_joined_goes_on(some_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    fake = some_ray(None)
    start_ray(Mock())
    assert fake.init.call_args.kwargs["address"] == "10.0.0.1:6379"
    some_ray("10.0.0.1:6379")
    stop_ray(Mock())
    fake.shutdown.assert_not_called()


def test_a_ray_that_was_started_is_ended(some_ray):
    fake = some_ray(None)
    fake.init.side_effect = lambda **options: some_ray("ours")
    start_ray(Mock())
    stop_ray(Mock())
    fake.shutdown.assert_called_once()
    some_ray("another")  # since then
    stop_ray(Mock())
    fake.shutdown.assert_called_once()
