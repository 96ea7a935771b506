import os

import pytest
from ray.cluster_utils import Cluster

from tests.integration.small import train, write_config


@pytest.fixture(scope="session")
def ray_cluster():
    """A real Ray on this machine, started once, which commands join through RAY_ADDRESS."""
    before = dict(os.environ)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster.address
    os.environ.clear()
    os.environ.update(before)
    cluster.shutdown()


@pytest.fixture(scope="session")
def small(ray_cluster, tmp_path_factory):
    """The small experiment's config file and a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("small")
    config = write_config(folder, folder / "cache")
    run = folder / "undisturbed"
    status = train("--config", config, "--output", run, log=folder / "undisturbed.log")
    assert status == 0, (folder / "undisturbed.log").read_text()
    return config, run
