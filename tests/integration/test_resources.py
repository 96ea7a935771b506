"""What workers reserve on a real cluster whose nodes pretend to have GPUs."""

import json
import os
import subprocess
import sys

from ray.cluster_utils import Cluster

# In a process of its own, since this one has joined another cluster.
ASK = """
import json, sys
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from sdn_ray.cluster.resources import worker_resources
from sdn_ray.config import TrainingConfig
from sdn_ray.errors import UserError

ray.init(logging_level="ERROR", log_to_driver=False)
for workers, trials, gpus in json.loads(sys.argv[1]):
    try:
        each = worker_resources(
            TrainingConfig(workers=workers), trials=trials, gpus_per_worker=gpus
        )
        group = placement_group([each] * (workers * trials))
        each["fits"] = group.wait(30)
        remove_placement_group(group)
        print(json.dumps(each))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def test_workers_get_gpus_with_their_share_of_the_cores():
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    asked = [(1, 1, None), (4, 1, None), (6, 1, None), (2, 2, 0.5), (7, 1, None), (2, 1, 0)]
    try:
        cluster.add_node(num_cpus=8, num_gpus=4)
        cluster.add_node(num_cpus=6, num_gpus=2)
        env = os.environ | {"RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
        command = [sys.executable, "-c", ASK, json.dumps(asked)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    finally:
        cluster.shutdown()
    one, four, six, halves, seven, none = map(json.loads, done.stdout.splitlines())
    # 8 cores over 4 GPUs and 6 over 2: 2 cores a GPU can be had everywhere.
    assert one == four == six == {"CPU": 2, "GPU": 1, "fits": True}
    assert halves == {"CPU": 1, "GPU": 0.5, "fits": True}
    assert seven.startswith("training.workers: found 7, 1 GPUs each, but the cluster has 6 GPUs")
    assert none == {"CPU": 6, "fits": True}
