from sdn_ray.runs.folder import TrackedRun
from sdn_ray.runs.tracking import Recorder


def test_a_store_that_is_gone_costs_a_warning_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("where the store's folder was")
    warnings = []
    recorder = Recorder(
        TrackedRun(f"sqlite:///{tmp_path}/file/mlflow.db", "0", "x"), warnings.append
    )
    recorder.metrics({"loss": 1.0}, 0)
    recorder.tags({"a": "b"})
    recorder.file(tmp_path / "file")
    assert len(warnings) == 3
    assert all("did not record" in warning for warning in warnings)
