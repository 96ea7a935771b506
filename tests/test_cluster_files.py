"""The files in jobs/ that clusters and dashboards read."""

import copy
import json
import re
import shlex
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from sdn_ray.search.space import read_search_space
from sdn_ray.training.gauges import Gauges

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rayjob():
    return yaml.safe_load((ROOT / "jobs" / "rayjob.yaml").read_text())


def check(manifest):
    """RayJob and RayCluster by KubeRay's API reference, pod templates by Kubernetes' own schema."""
    schema = json.loads((ROOT / "tests" / "rayjob.schema.json").read_text())
    jsonschema.validate(manifest, schema)
    cluster = manifest["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        kubernetes_validate.validate(pod | {"metadata": {"name": "pod"}}, "1.31", strict=True)


def test_the_rayjob_is_valid(rayjob):
    check(rayjob)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "entrypont"), "python"),
        (("spec", "backoffLimit"), "2"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "none"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "container"), []),
    ],
)
def test_a_slip_in_the_rayjob_would_be_found(rayjob, path, value):
    broken = copy.deepcopy(rayjob)
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(broken)


def test_the_rayjob_runs_a_command_that_exists(rayjob):
    [_, _, script] = shlex.split(rayjob["spec"]["entrypoint"])
    words = script.split()
    config = yaml.safe_load((ROOT / words[words.index("--config") + 1]).read_text())
    assert config["dataset"]["name"] == "oxford_flowers"
    assert read_search_space(ROOT / words[words.index("--space") + 1]).parameters
    assert all(Path(path).is_absolute() for path in re.findall(r"(?<= )/shared\S*", script))


def test_the_dashboard_shows_the_gauges_there_are():
    text = (ROOT / "jobs" / "grafana_dashboard.json").read_text()
    queried = set(re.findall(r"ray_(sdn_\w+)", text))
    gauges = Gauges("run")
    assert queried == {
        gauge.info["name"] for gauge in vars(gauges).values() if hasattr(gauge, "info")
    }
    json.loads(text)
