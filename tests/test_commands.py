"""What a user can get wrong is one line, before any cluster starts, and nothing is written."""

import json
from pathlib import Path

import pytest

import sdn_ray
from sdn_ray.__main__ import main
from sdn_ray.evaluate import main as evaluate
from sdn_ray.generate import main as generate
from sdn_ray.runs.command_line import run_command
from sdn_ray.runs.experiment import flatten
from sdn_ray.runs.folder import read_metrics
from sdn_ray.scoring import run as scoring_run
from sdn_ray.train import main as train
from sdn_ray.training import session


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(session, "start_ray", lambda terminal: pytest.fail("Ray was started"))
    monkeypatch.chdir(tmp_path)

    def run(command, *arguments):
        assert run_command(command, [str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error

    return run


def test_train_refuses_a_folder_that_holds_a_run(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 1\n")
    error = refused(train, "--output", tmp_path / "run")
    assert f"--resume {tmp_path / 'run'}" in error
    assert (tmp_path / "run" / "config.yaml").read_text() == "seed: 1\n"


def test_train_refuses_options_beside_resume(refused, tmp_path):
    assert "--seed" in refused(train, "--resume", tmp_path, "--seed", 3)


def test_train_refuses_to_resume_what_is_no_run(refused, tmp_path):
    assert "config.yaml" in refused(train, "--resume", tmp_path)


def test_train_needs_a_root(refused):
    options = ["--teacher.weights", "fit", "--teacher.plan", "8,M", "--dataset.name", "cub"]
    assert "dataset.root: found nothing" in refused(train, *options)


def test_train_names_a_missing_data_set(refused, tmp_path):
    options = ["--dataset.name", "oxford_flowers", "--dataset.root", tmp_path / "none"]
    error = refused(train, "--teacher.weights", "fit", "--teacher.plan", "8,M", *options)
    assert str(tmp_path / "none") in error


def test_train_reports_an_unreachable_mlflow_server(refused, tmp_path):
    cache = tmp_path / "cache"
    options = ["--dataset.cache", cache, "--dataset.image_size", 16]
    error = refused(train, *options, "--tracking.uri", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in error
    assert not (tmp_path / "runs").exists()


def test_train_refuses_the_wrong_plan_for_a_teacher_file(refused, material):
    error = refused(train, "--teacher.weights", material.teacher, "--teacher.plan", "vgg19")
    assert "teacher.plan: found vgg19" in error


def test_generate_wants_one_source_of_captions(refused, tmp_path):
    options = ["--model", tmp_path, "--output", tmp_path / "out"]
    assert "--text, --captions and --reference" in refused(generate, *options)
    assert "--text, --captions and --reference" in refused(
        generate, *options, "--text", "a flower", "--captions", "x.txt"
    )
    (tmp_path / "captions.txt").write_text("a flower\n\nanother\n")
    assert "empty line 2" in refused(generate, *options, "--captions", tmp_path / "captions.txt")


def test_generate_refuses_what_is_no_model_and_a_full_folder(refused, tmp_path):
    options = ["--text", "a flower", "--output", tmp_path / "out"]
    assert "config.json" in refused(generate, "--model", tmp_path / "none", *options)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "00000.png").write_bytes(b"mine")
    assert "already holds files" in refused(generate, "--model", tmp_path / "none", *options)
    assert (tmp_path / "out" / "00000.png").read_bytes() == b"mine"


def test_a_mistyped_option_gets_a_suggestion(refused):
    assert "Did you mean --seed?" in refused(train, "--sed", 3)
    error = refused(train, "--distillation.stage_two.learnin_rate=0.1")
    assert "Did you mean --distillation.stage_two.learning_rate?" in error
    assert "Did you mean" not in refused(train, "--nothing_like_it", 3)


def test_a_kind_of_encoder_without_a_model(refused):
    assert "text.encoder: found sentence:, expected" in refused(
        train, "--text.encoder", "sentence:"
    )


def test_evaluate_looks_at_its_folders_first(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(
        scoring_run, "load_classifier", lambda spec: pytest.fail("went for weights")
    )
    assert f"--images: {tmp_path / 'none'} is no folder" in refused(
        evaluate, "--images", tmp_path / "none"
    )
    assert f"--model: {tmp_path / 'none'} is no folder" in refused(
        evaluate, "--model", tmp_path / "none", "--reference", tmp_path
    )


def test_a_run_given_as_its_model_is_named(refused, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    options = ["--text", "a flower", "another", "--output", tmp_path / "out"]
    error = refused(generate, "--model", tmp_path / "run", *options)
    assert f"which is {tmp_path / 'run' / 'model'}" in error


def test_a_data_set_one_folder_further_down_is_named(refused, drawn_material, tmp_path):
    above = drawn_material.flowers.parent
    options = ["--dataset.name", "oxford_flowers", "--dataset.root", above]
    error = refused(train, "--teacher.weights", "fit", "--teacher.plan", "8,M", *options)
    assert f"There is one in {drawn_material.flowers}" in error
    error = refused(evaluate, "--images", tmp_path, "--reference", above, "--classifier", "alexnet")
    assert f"Did you mean {drawn_material.flowers}?" in error


def test_a_classifier_is_no_teacher(refused, drawn_material):
    error = refused(train, "--teacher.weights", drawn_material.classifier.partition(":")[2])
    assert "holds no convolutions of a VGG" in error


def test_the_commands_are_listed(capsys):
    assert main() == 0
    listed = capsys.readouterr().out
    for path in (Path(sdn_ray.__file__).parent).glob("[a-z]*.py"):
        command = "def main(arguments" in path.read_text()
        assert (f"python -m sdn_ray.{path.stem} " in listed) == command


def test_metrics_survive_a_line_cut_short(tmp_path):
    whole = json.dumps({"epoch": 1, "loss": 2.0})
    (tmp_path / "metrics.jsonl").write_text(whole + "\n" + '{"epoch": 2, "lo')
    assert read_metrics(tmp_path) == [{"epoch": 1, "loss": 2.0}]
    assert read_metrics(tmp_path / "none") == []


def test_flatten_gives_dotted_names():
    nested = {"a": {"b": 1, "c": {"d": None}}, "e": {}}
    assert flatten(nested) == {"a.b": 1, "a.c.d": None, "e": "{}"}
