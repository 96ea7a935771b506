"""Many trainings, each killed at a random moment: python -m tests.measure.kill_many --runs 20.

A worker or the driver gets SIGKILL; the run goes on (by itself, or with --resume) and must end in
the same weights as a run that nothing disturbed.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from tests.integration.small import (
    METHODS,
    generator_hash,
    kill_worker,
    start,
    train,
    wait_for,
    write_config,
)


def main() -> int:
    """Run them all; the exit status says whether all ended in the same weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=sorted(METHODS), default="sdn_diverse")
    options = parser.parse_args()
    random.seed(options.seed)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        with tempfile.TemporaryDirectory() as folder:
            lost = _kill_many(Path(folder), options)
    finally:
        ray.shutdown()  # a cluster does not remove the node to which this process is connected
        cluster.shutdown()
    print(f"{options.runs} runs killed, {lost} lost anything", flush=True)
    return 1 if lost else 0


def _kill_many(folder: Path, options: argparse.Namespace) -> int:
    config = write_config(folder, folder / "cache", method=options.method)
    for name in ("first", "undisturbed"):  # the first one fills the cache
        run, began = folder / name, time.monotonic()
        process = start("sdn_ray.train", "--config", config, "--output", run, log=folder / "log")
        wait_for((run / ".lock").exists, process)
        locked = time.monotonic()
        wait_for((run / "model").exists, process)
        training = time.monotonic() - locked
        assert process.wait(600) == 0
        seconds = time.monotonic() - began
    expected = generator_hash(folder / "undisturbed")
    print(f"undisturbed: {seconds:.0f} s, {training:.0f} s of it training", flush=True)
    lost = 0
    for number in range(options.runs):
        run, log = folder / f"run{number}", folder / f"log{number}"
        victim = ("worker", "driver")[number % 2]
        process = start("sdn_ray.train", "--config", config, "--output", run, log=log)
        began = time.monotonic()
        if victim == "worker":
            wait_for((run / ".lock").exists, process)
            time.sleep(random.uniform(0, 0.9) * training)
            what = "worker killed" if kill_worker(run) else "no worker left to kill"
        else:
            time.sleep(random.uniform(0.1, 1.0) * seconds)
            os.kill(process.pid, signal.SIGKILL)
            what = "driver killed"
        moment = time.monotonic() - began
        process.wait(600)
        while not (run / "model").is_dir():
            going_on = (run / "config.yaml").exists()
            again = ["--resume", run] if going_on else ["--config", config, "--output", run]
            what += ", resumed" if going_on else ", started again"
            if train(*again, log=log) != 0:
                break
        same = (run / "model").is_dir() and generator_hash(run) == expected
        lost += not same
        print(f"{number}: after {moment:.0f} s {what}: {'same' if same else 'LOST'}", flush=True)
        if not same:
            print(log.read_text(), flush=True)
    return lost


if __name__ == "__main__":
    raise SystemExit(main())
