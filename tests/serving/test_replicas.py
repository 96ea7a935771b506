import pytest
import ray

from sdn_ray.errors import UserError
from sdn_ray.serving.replicas import replica_resources


@pytest.fixture
def cluster(monkeypatch):
    def has(*nodes):
        alive = [{"Alive": True, "Resources": dict(node)} for node in nodes]
        dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
        monkeypatch.setattr(ray, "nodes", lambda: [*alive, dead])

    return has


def node(cpus, gpus=0):
    return {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([node(2)], (1, None, None), (2, {"CPU": 1})),
        ([node(2)], (1, 1, None), (1, {"CPU": 2})),
        ([node(8)], (3, None, None), (2, {"CPU": 1})),
        ([node(2)], (2, None, None), (1, {"CPU": 1})),
        ([node(2)], (3, None, None), (1, {"CPU": 0.5})),
        ([node(1)], (3, None, None), (1, {"CPU": 0.3333})),
        ([node(8)], (2, 2, None), (2, {"CPU": 2})),
        ([node(8)], (2, None, 0.5), (2, {"CPU": 0.5})),
        # A replica lives on one node, and a part of a GPU is of one GPU.
        ([node(8), node(8)], (1, None, None), (2, {"CPU": 8})),
        ([node(8), node(4)], (3, 1, None), (1, {"CPU": 4})),
        ([node(8), node(8, 1)], (1, None, None), (1, {"CPU": 8, "GPU": 1})),
        ([node(16, 4)], (1, None, None), (4, {"CPU": 4, "GPU": 1})),
        ([node(16, 4)], (2, None, None), (2, {"CPU": 4, "GPU": 1})),
        ([node(16, 1)], (3, None, None), (1, {"CPU": 5, "GPU": 0.3333})),
        ([node(16, 2)], (3, None, None), (1, {"CPU": 5, "GPU": 0.5})),
        ([node(16, 4)], (1, 5, None), (5, {"CPU": 3, "GPU": 0.5})),
    ],
)
def test_replicas_share_the_cluster(cluster, nodes, asked, expected):
    cluster(*nodes)
    assert replica_resources(*asked) == expected


@pytest.mark.parametrize(
    ("replicas", "cores"), [(None, 1.5), (1, 2), (None, -1), (None, 0), (None, float("nan"))]
)
def test_more_than_there_is_is_refused(cluster, replicas, cores):
    cluster(node(2))
    with pytest.raises(UserError, match=r"--cpus_per_replica: found .* expected at most 1 cores"):
        replica_resources(2, replicas, cores)
