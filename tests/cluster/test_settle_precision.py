import pytest

from sdn_ray.cluster import precision
from sdn_ray.config import ExperimentConfig, TrainingConfig


class Terminal:
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)

    def wait(self, what):
        pass


@pytest.fixture
def settle(monkeypatch):
    """Settles a precision on a machine that is fast in another; gives the result and the words."""

    def run(asked, fast, resources=None):
        monkeypatch.setattr(precision, "fast_precision", lambda device: fast)
        monkeypatch.setattr(precision.ray, "nodes", lambda: [{}])
        monkeypatch.setattr(precision, "ray_runner", lambda _: lambda work, *given: work(*given))
        terminal = Terminal()
        config = ExperimentConfig(seed=7, training=TrainingConfig(precision=asked))
        found = precision.settle_precision(config, resources or {"CPU": 2}, terminal)
        assert found.seed == 7
        return found.training.precision, terminal.lines

    return run


def test_auto_is_what_the_machine_computes_fast(settle):
    assert settle("auto", "bf16") == ("bf16", ["precision: bf16, which this CPU computes fast"])
    assert settle("auto", "fp32") == ("fp32", ["precision: fp32, since this CPU has no fast bf16"])
    gpu = {"CPU": 8, "GPU": 1}
    assert settle("auto", "bf16", gpu) == (
        "bf16",
        ["precision: bf16, which this GPU computes fast"],
    )


def test_a_named_precision_is_kept_and_a_slow_one_said_to_be_slow(settle):
    assert settle("fp32", "bf16") == ("fp32", [])
    assert settle("bf16", "bf16") == ("bf16", [])
    found, (line,) = settle("bf16", "fp32")
    assert found == "bf16"
    assert "many times slower than fp32" in line
