import json
import os
import shutil
import signal

import optuna
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from PIL import Image

from sdn_ray import tune
from sdn_ray.data.image_sets import read_real
from sdn_ray.data.references import part_rows, read_reference, source_name
from sdn_ray.errors import UserError
from sdn_ray.files import file_hash, sole_writer
from sdn_ray.runs.experiment import read_experiment
from sdn_ray.runs.folder import TrackedRun, note_run, read_metrics
from tests.integration.small import start, wait_for

SPACE = """
distillation.stage_two.learning_rate: {loguniform: [3.0e-4, 3.0e-3]}
total_epochs: 2
stage_one_fraction: {uniform: [0.2, 0.7]}
"""


@pytest.fixture(scope="module")
def config(ray_cluster, search_config):
    return search_config


def run(*arguments):
    assert tune.main([str(argument) for argument in arguments]) == 0


def trials(folder):
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/study.db").trials


def test_a_killed_search_goes_on_without_repeating_a_trial(config, tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    study, log = tmp_path / "study", tmp_path / "log"
    options = ["--config", config, "--space", tmp_path / "space.yaml", "--trials", 4]
    process = start("sdn_ray.tune", *options, "--prune", "false", "--output", study, log=log)
    third = study / "trials" / "0002" / "metrics.jsonl"
    wait_for(third.exists, process, timeout=300)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    models = [study / "trials" / f"{number:04d}" / "model" / "config.json" for number in range(2)]
    times = [path.stat().st_mtime_ns for path in models]
    run("--resume", study)

    found = trials(study)
    assert [trial.number for trial in found] == list(range(4))
    assert {trial.state for trial in found} == {TrialState.COMPLETE}
    assert [path.stat().st_mtime_ns for path in models] == times
    assert all(0 < trial.value < 3 for trial in found)  # the perceptual distance
    best = min(found, key=lambda trial: trial.value)
    chosen = read_experiment(study / "best.yaml").distillation
    assert chosen.stage_two.learning_rate == pytest.approx(
        best.params["distillation.stage_two.learning_rate"]
    )
    assert chosen.stage_one.epochs + chosen.stage_two.epochs == 2
    for name in ("history.png", "importances.png"):
        assert (study / name).stat().st_size > 5000

    parent = json.loads((study / "mlflow.json").read_text())
    client = MlflowClient(parent["uri"])
    nested = client.search_runs(
        [parent["experiment_id"]], f"tags.`mlflow.parentRunId` = '{parent['run_id']}'"
    )
    assert len(nested) == 4
    assert {child.info.status for child in nested} == {"FINISHED"}
    assert {child.data.tags["sdn_ray.status"] for child in nested} == {"complete"}
    by_number = {int(child.data.tags["sdn_ray.trial"]): child for child in nested}
    for trial in found:
        child = by_number[trial.number]
        assert child.data.metrics["objective"] == trial.value
        assert child.data.metrics["validation/perceptual_distance"] == trial.value
        params = child.data.params
        assert "searched/stage_one_fraction" in params
        assert "distillation.stage_two.learning_rate" not in params  # it stands once
        assert "None" not in params.values()
    whole = client.get_run(parent["run_id"]).data
    assert whole.metrics["best/objective"] == best.value
    assert whole.metrics["best/trial"] == best.number
    assert whole.metrics["trials/complete"] == 4
    assert f"The best is trial {best.number}" in whole.tags["mlflow.note.content"]
    # The test classes are never touched: no score of theirs, and no trial knows their names.
    for folder in (study / "trials").iterdir():
        assert json.loads((folder / "scores.json").read_text()) == {}
        origin = json.loads((folder / "model" / "config.json").read_text())["origin"]
        assert origin["split"]["test"] == []


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(config, tmp_path):
    (tmp_path / "space.yaml").write_text(
        "distillation.stage_one.learning_rate: {grid: [1.0e+30, 1.0e-3]}\n"
    )
    study = tmp_path / "study"
    options = ["--config", config, "--distillation.stage_two.epochs", 1]
    run(*options, "--space", tmp_path / "space.yaml", "--output", study)
    failed, complete = trials(study)
    assert (failed.state, complete.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert "stage_one.learning_rate" in failed.user_attrs["reason"]
    child = json.loads((study / "trials" / "0000" / "mlflow.json").read_text())
    recorded = MlflowClient(child["uri"]).get_run(child["run_id"])
    assert recorded.info.status == "FAILED"
    assert recorded.data.tags["sdn_ray.reason"] == failed.user_attrs["reason"]


def test_table_3_is_a_grid_that_is_scored_on_the_test_classes(
    config, ray_cluster, tmp_path, capsys
):
    (tmp_path / "space.yaml").write_text(
        "distillation.scheme: {grid: [sdn, image]}\nseed: {grid: [0, 1]}\n"
    )
    study = tmp_path / "study"
    options = ["--config", config, "--distillation.grow_samples", "false"]
    options += ["--distillation.stage_two.epochs", 1, "--score_test", "true"]
    run(*options, "--space", tmp_path / "space.yaml", "--output", study)
    table = json.loads((study / "table.json").read_text())
    assert list(table) == ["Image space loss", "SDN"]  # in the order of the paper's table
    for name, numbers in (("SDN", (0, 1)), ("Image space loss", (2, 3))):
        scores = [
            json.loads((study / "trials" / f"{number:04d}" / "scores.json").read_text())["ssim"]
            for number in numbers
        ]
        assert table[name]["seeds"] == 2
        assert table[name]["mean"]["ssim"] == pytest.approx(sum(scores) / 2)
        assert table[name]["std"]["ssim"] == pytest.approx(abs(scores[0] - scores[1]) / 2)
    with Image.open(study / "schemes.png") as picture:
        assert min(picture.size) > 300
    assert "Image space loss" in capsys.readouterr().out


METHODS = """
rows:
  GAN-INT-CLS: {method: gan_int_cls, gan_int_cls.epochs: 1, gan_int_cls.generator_width: 8}
  GAWWN: {method: gawwn, dataset.image_size: 32}
  SDN:
    dataset.image_size: 24
    generator.fc_width: 16
    distillation.stage_one.epochs: 4
    distillation.stage_two.epochs: 4
seed: {grid: [3]}
"""
PHOTOGRAPHS = """
dataset: {name: oxford_flowers, image_size: 16, validation_classes: 1}
teacher: {weights: fit, plan: "4,M,8,M", fit: {epochs: 1, batch_size: 16}}
text: {encoder: words, embedding_dim: 32}
training: {cpus_per_worker: 1}
"""


def copied_photographs(reference, folder):
    """The test photographs at 16×16 as another system's images of their first captions."""
    folder.mkdir()
    lines = []
    for place, row in enumerate(part_rows(read_reference(reference), "test", None)):
        Image.fromarray(read_real(row.image_path, 16, 16)).save(folder / f"{place}.png")
        lines.append({"file": f"{place}.png", "source": source_name(row)})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_table_1_scores_methods_beside_each_other(
    ray_cluster, reference, best_material, empty_store, tmp_path
):
    shutil.copy(empty_store, tmp_path)
    copies = copied_photographs(reference, tmp_path / "copies")
    methods = METHODS.replace("rows:\n", f"rows:\n  Copies: {{images: {copies}}}\n")
    for name, text in (("space", methods), ("config", PHOTOGRAPHS)):
        (tmp_path / f"{name}.yaml").write_text(text)
    study, uri = tmp_path / "study", f"sqlite:///{tmp_path}/mlflow.db"
    options = ["--config", tmp_path / "config.yaml", "--space", tmp_path / "space.yaml"]
    options += ["--dataset.root", reference, "--dataset.cache", tmp_path / "cache"]
    options += ["--tracking.uri", uri, "--output", study, "--score_test", "true"]
    with pytest.raises(UserError, match="expected one, such as squeezenet1_1:WEIGHTS"):
        tune.main([str(option) for option in options])
    # So short that no stage has more than an epoch.
    options += ["--equal_minutes", 1e-5, "--evaluation.classifier", best_material.classifier]
    options += ["--best_of", 2]
    run(*options)
    epochs = json.loads((study / "equal_time.json").read_text())
    stages = ("distillation.stage_one.epochs", "distillation.stage_two.epochs")
    assert epochs["SDN"] == dict.fromkeys(stages, 1)
    assert epochs.keys() == {"GAN-INT-CLS", "SDN"}
    table = json.loads((study / "table.json").read_text())
    real_rows = ["real images, 16×16", "real images, 24×24"]
    assert list(table) == ["Copies‡", "GAN-INT-CLS", "GAWWN†", "SDN", *real_rows]
    assert [table[name]["pixels a side"] for name in real_rows] == [[16], [24]]
    assert table["GAWWN†"] == {"seeds": None}
    other, real = table["Copies‡"], table["real images, 16×16"]
    assert (other["seeds"], other["pixels a side"]) == (None, [16])
    assert (other["SSIM"], other["FSIM"]) == ([1], pytest.approx([1]))
    assert other["score"] == real["score"]
    assert "hours" not in other
    assert [table[name]["pixels a side"] for name in ("GAN-INT-CLS", "SDN")] == [[16], [24]]
    for place, name in enumerate(("GAN-INT-CLS", "SDN")):
        row = table[name]
        assert (row["seeds"], row["epochs"]) == (1, [place + 1])
        # The same pictures as the trial itself has scored at its end, at its own size.
        scores = json.loads((study / "trials" / f"{place:04d}" / "scores.json").read_text())
        alike = row["SSIM"] == pytest.approx([scores["ssim"]], abs=1e-3)
        assert alike == (row["pixels a side"] == [16])
        [seen], [rate], [hours] = row["images seen"], row["images/s"], row["hours"]
        assert seen == 30 * (place + 1)  # of the four training classes one is for validation
        assert hours == pytest.approx(seen / rate / 3600)
        assert row["FID"][0] > 0
    for name, method in zip(real_rows, ("GAN-INT-CLS", "SDN"), strict=True):
        real = table[name]
        assert real["seeds"] is None
        assert "FID" not in real
        assert real["score"][0] > max(table[method]["score"])
    assert len({tuple(table[name]["SSIM between captions"]) for name in real_rows}) == 1
    lines = (study / "table.md").read_text().splitlines()
    assert lines[0].endswith("; SSIM and FSIM at 16×16; each trained for about 1e-05 minutes")
    assert lines[2].startswith("| method | seeds | score | FID | KID | SSIM | FSIM | colours, % |")
    assert lines[-5].startswith("| real images, 24×24 |  | ")
    assert lines[-3].startswith("† GAWWN: not trained on oxford_flowers, which has neither")
    assert lines[-1] == f"‡ Copies: one set of images, {copies}"
    assert (study / "table.tex").read_text().count(r"\\") == 7
    for picture in ("table.png", "methods.png"):
        assert min(Image.open(study / picture).size) > 100


def test_a_trial_of_two_workers_with_an_encoder_of_its_own(config, small_cache, tmp_path):
    """Ray Train runs inside the trial; text options vary, so it prepares what it needs."""
    (tmp_path / "space.yaml").write_text("text.embedding_dim: {grid: [64]}\n")
    study = tmp_path / "study"
    options = ["--config", config, "--training.workers", 2, "--distillation.stage_two.epochs", 1]
    before = {file_hash(path) for path in small_cache.glob("text-*.json")}
    run(*options, "--space", tmp_path / "space.yaml", "--output", study)
    [found] = trials(study)
    assert found.state == TrialState.COMPLETE
    assert sorted(found.intermediate_values) == [1]  # stage one is not reported to the pruner
    trial = study / "trials" / "0000"
    assert [record["epoch"] for record in read_metrics(trial)] == [1, 2]
    assert file_hash(trial / "model" / "words.json") not in before


def test_what_cannot_be_searched_is_one_clear_error(config, tmp_path):
    def refused(*arguments):
        with pytest.raises(UserError) as error:
            tune.main([str(argument) for argument in arguments])
        return str(error.value)

    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    options = ["--config", config, "--space", space, "--output", tmp_path / "study"]
    assert "--space: found none" in refused("--config", config)
    assert "--trials: found 0" in refused(*options, "--trials", 0)
    assert "--objective: found 'loss', expected classifier_score, perceptual_distance" in refused(
        *options, "--objective", "loss"
    )
    assert "needs evaluation.classifier" in refused(*options, "--objective", "classifier_score")
    assert "dataset.validation_classes: found 0" in refused(
        *options, "--dataset.validation_classes", 0
    )
    assert "training.workers: found 3" in refused(*options, "--training.workers", 3)
    assert "expected a space of `grid`" in refused(*options, "--score_test", "true")
    assert "has no config.yaml" in refused("--resume", tmp_path)
    begun = tmp_path / "begun"  # a study whose MLflow server is gone
    begun.mkdir()
    shutil.copyfile(config, begun / "config.yaml")
    shutil.copyfile(space, begun / "space.yaml")
    settings = {"objective": None, "trials": 2, "prune": False, "score_test": False}
    (begun / "study.json").write_text(json.dumps(settings))
    with sole_writer(begun):  # by a command that lives
        assert "begun: another process is running this study" in refused("--resume", begun)
    note_run(begun, TrackedRun("http://127.0.0.1:9", "0", "gone"))
    assert "the MLflow store http://127.0.0.1:9 cannot be used" in refused("--resume", begun)
    space.write_text("distillation.weight_factors.conv9: {uniform: [0, 1]}\n")
    assert "conv9" in refused(*options)
    assert not (tmp_path / "study").exists()
