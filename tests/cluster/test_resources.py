"""What each worker reserves, on clusters of any shape."""

import pytest
import ray

from sdn_ray.cluster.resources import worker_resources
from sdn_ray.config import TrainingConfig
from sdn_ray.errors import UserError


@pytest.fixture
def nodes(monkeypatch):
    """Stands for a cluster: its nodes' resources, and what an autoscaler may make of them."""

    def has(*resources, later=None):
        found = [{"Alive": True, "Resources": node} for node in resources]
        monkeypatch.setattr(ray, "nodes", lambda: found)
        state = ray._private.state.state
        monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: later)

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
    assert resources() == {"CPU": 8, "GPU": 1}
    assert resources(workers=2) == {"CPU": 4, "GPU": 1}  # both on the first node
    assert resources(workers=4) == {"CPU": 4}  # there are not as many, and nobody insists
    assert resources(trials=4, gpus=0.5) == {"CPU": 2, "GPU": 0.5}
    assert resources(gpus=0) == {"CPU": 8}
    assert resources(device="cpu") == {"CPU": 8}


def test_what_can_never_be_is_refused(nodes):
    nodes({"CPU": 4.0, "GPU": 1.0})
    with pytest.raises(UserError, match="workers: found 5, but the cluster has 4 CPUs"):
        resources(workers=5)
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
    nodes({"CPU": 2.0}, later={"CPU": 34.0, "GPU": 4.0})
    assert resources(workers=4, device="gpu", cpus_per_worker=8) == {"CPU": 8, "GPU": 1}
    with pytest.raises(UserError, match="5, 1 GPUs each, but the cluster has 4 GPUs"):
        resources(workers=5, device="gpu")
