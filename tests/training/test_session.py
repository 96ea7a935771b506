from contextlib import nullcontext

import pytest

from sdn_ray.cluster import precision
from sdn_ray.runs.experiment import read_experiment
from sdn_ray.training import session
from tests.integration.small import write_config


class Terminal:
    lines: tuple[str, ...] = ()
    stop_wanted = False

    def line(self, text):
        self.lines += (text,)

    def wait(self, what):
        pass

    def progress(self, *what):
        pass

    def working(self, *what):
        return nullcontext()


@pytest.mark.parametrize("fast", ["bf16", "fp32"])
def test_the_kept_config_names_the_precision_that_auto_came_to(
    small_cache, tmp_path, monkeypatch, fast
):
    monkeypatch.setattr(session, "start_ray", lambda terminal: None)
    monkeypatch.setattr(session, "worker_resources", lambda config: {"CPU": 1})
    monkeypatch.setattr(precision, "fast_precision", lambda device: fast)
    monkeypatch.setattr(precision.ray, "nodes", lambda: [{}])
    path = write_config(tmp_path, small_cache)
    path.write_text(path.read_text().replace("batch_size: 12,", "batch_size: 12, precision: auto,"))
    config = read_experiment(path)
    assert config.training.precision == "auto"
    run = tmp_path / "run"
    opened = session.open_session(config, run, {}, Terminal(), known=False)
    assert opened.config.training.precision == fast
    assert read_experiment(run / "config.yaml").training.precision == fast
