import pytest
import ray

from sdn_ray.errors import UserError
from sdn_ray.serving.replicas import replica_resources


@pytest.fixture
def cluster(monkeypatch):
    def has(**resources):
        monkeypatch.setattr(ray, "cluster_resources", lambda: resources)

    return has


@pytest.mark.parametrize(
    ("has", "asked", "expected"),
    [
        ({"CPU": 2.0}, (1, None, None), (1, {"CPU": 2})),
        ({"CPU": 2.0}, (2, None, None), (1, {"CPU": 1})),
        ({"CPU": 2.0}, (3, None, None), (1, {"CPU": 0.6666})),
        ({"CPU": 8.0}, (2, 2, None), (2, {"CPU": 2})),
        ({"CPU": 8.0}, (2, None, 0.5), (1, {"CPU": 0.5})),
        ({"CPU": 16.0, "GPU": 4.0}, (1, None, None), (4, {"CPU": 4, "GPU": 1})),
        ({"CPU": 16.0, "GPU": 4.0}, (2, None, None), (2, {"CPU": 4, "GPU": 1})),
        ({"CPU": 16.0, "GPU": 1.0}, (3, None, None), (1, {"CPU": 5, "GPU": 0.3333})),
    ],
)
def test_replicas_share_the_cluster(cluster, has, asked, expected):
    cluster(**has)
    assert replica_resources(*asked) == expected


@pytest.mark.parametrize(("replicas", "cores"), [(None, 1.5), (1, 2), (None, -1)])
def test_more_than_there_is_is_refused(cluster, replicas, cores):
    cluster(CPU=2.0)
    with pytest.raises(UserError, match=r"--cpus_per_replica: found .* expected at most 1: the"):
        replica_resources(2, replicas, cores)
