import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sdn_ray.config import (
    DatasetConfig,
    DistillationConfig,
    ExperimentConfig,
    FitConfig,
    GeneratorConfig,
    StageConfig,
    TeacherConfig,
    TextConfig,
    TrainingConfig,
)
from sdn_ray.errors import UserError
from sdn_ray.runs.experiment import (
    absolute,
    experiment_from,
    experiment_parser,
    parse,
    read_experiment,
    read_kept_experiment,
    to_yaml,
    with_absolute_paths,
)
from sdn_ray.training.build import config_stages
from sdn_ray.training.checks import check_experiment

JOBS = Path(__file__).parents[1] / "jobs"
FIT = TeacherConfig(plan="8,M,16,M", weights="fit")


def parsed(*arguments):
    return experiment_from(parse(experiment_parser("test", ""), arguments))


def test_yaml_and_dotted_options_and_defaults(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("seed: 3\ndistillation: {stage_two: {epochs: 7}, weight_factors: {conv1: 2}}\n")
    config = parsed("--config", str(path), "--distillation.stage_two.learning_rate", "0.5")
    assert config.seed == 3
    assert config.distillation.stage_two.epochs == 7
    assert config.distillation.stage_two.learning_rate == 0.5
    assert config.distillation.stage_one == DistillationConfig().stage_one
    assert config.distillation.weight_factors == {"conv1": 2.0}


def test_the_written_config_reads_back(tmp_path):
    config = parsed("--config", str(JOBS / "flowers64.yaml"), "--training.batch_size", "24")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_experiment(tmp_path / "config.yaml") == config
    flat = yaml.safe_load(to_yaml(config))
    assert flat["training"]["batch_size"] == 24
    assert flat["evaluation"]["score_test"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--training.batch_size", "many"], ["training.batch_size", "many"]),
        (["--training.batch_size", "0"], ["training.batch_size", "0"]),
        (["--training.batchsize", "3"], ["--training.batchsize"]),
        (["--distillation.scheme", "gan"], ["distillation.scheme", "gan", "sdn_diverse"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--config", "/nowhere/x.yaml"], ["config", "/nowhere/x.yaml"]),
    ],
)
def test_a_bad_option_is_named(arguments, words):
    with pytest.raises(UserError) as error:
        parsed(*arguments)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_key_in_a_file_is_named(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("training: {batch_sizes: 3}\n")
    with pytest.raises(UserError, match="batch_sizes"):
        parsed("--config", str(path))
    with pytest.raises(UserError, match="batch_sizes"):
        read_experiment(path)


@pytest.mark.parametrize("name", ["paper_cub", "paper_flowers"])
def test_paper_presets_are_the_papers(name):
    config = read_experiment(JOBS / f"{name}.yaml")
    assert (config.dataset.image_size, config.dataset.validation_classes) == (224, 0)
    assert (config.teacher.plan, config.teacher.weights) == ("vgg19", "imagenet")
    assert config.training.batch_size == 12
    assert not config.training.flips
    assert not config.generator.batch_norm
    assert config.generator.fc_width == 4096
    assert config.distillation.layer_weights == "paper"
    stages = config_stages(config)
    assert [(s.loss, s.epochs, s.learning_rate) for s in stages] == [
        ("stage_one", 100, 1e-4),
        ("stage_two", 100, 1e-4),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("quickstart", "flowers_drawn", "flowers64", "flowers64_adversarial"),
        *(
            "gan_int_cls_flowers64",
            "stackgan_flowers64",
            "table1_cub",
            "table1_flowers",
            "table1_flowers64",
            "table1_quickstart",
            "table3",
            "paper_cub",
            "paper_flowers",
        ),
    ],
)
def test_presets_read(name):
    assert read_experiment(JOBS / f"{name}.yaml").seed == 0


@pytest.mark.parametrize("name", ["paper_cub", "paper_flowers"])
def test_the_papers_presets_have_nothing_that_the_paper_has_not(name):
    config = read_experiment(JOBS / f"{name}.yaml")
    assert config.text.whiten is False
    assert config.text.encoder == "char_cnn_rnn"
    assert config.training.average_half_life is None
    assert config.generator.upsampling == "nearest"


def test_flowers64_has_twelve_epochs():
    stages = config_stages(read_experiment(JOBS / "flowers64.yaml"))
    assert sum(stage.epochs for stage in stages) == 12


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ExperimentConfig(), "teacher.weights: found nothing"),
        (ExperimentConfig(teacher=TeacherConfig(weights="fit")), "teacher.plan: found nothing"),
        (
            ExperimentConfig(teacher=TeacherConfig(weights="/nowhere.safetensors")),
            "/nowhere.safetensors",
        ),
        (
            ExperimentConfig(teacher=FIT, dataset=DatasetConfig(image_size=66)),
            "dataset.image_size: found 66, expected a multiple of 4",
        ),
        (
            ExperimentConfig(
                teacher=replace(FIT, fit=FitConfig(grid=65)), dataset=DatasetConfig(image_size=64)
            ),
            "teacher.fit.grid: found 65, expected at most dataset.image_size, which is 64",
        ),
        (
            ExperimentConfig(teacher=FIT, training=TrainingConfig(batch_size=12, workers=5)),
            "training.batch_size: found 12",
        ),
        (
            ExperimentConfig(teacher=FIT, distillation=DistillationConfig(samples=3)),
            "distillation.samples: found 3",
        ),
        (
            ExperimentConfig(
                teacher=FIT, distillation=DistillationConfig(weight_factors={"conv9": 1.0})
            ),
            "conv9",
        ),
        (
            ExperimentConfig(
                teacher=FIT,
                generator=GeneratorConfig(batch_norm=True),
                training=TrainingConfig(batch_size=2, workers=2),
            ),
            "generator.batch_norm",
        ),
    ],
)
def test_impossible_combinations_are_refused(config, words):
    with pytest.raises(UserError) as error:
        check_experiment(config)
    assert words in str(error.value)


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = ExperimentConfig(
        dataset=DatasetConfig(root="data"), teacher=replace(FIT, weights="w.safetensors")
    )
    config = with_absolute_paths(config)
    assert config.dataset.root == str(tmp_path / "data")
    assert config.teacher.weights == str(tmp_path / "w.safetensors")
    assert config.text.weights == "fit"


def test_relative_paths_are_refused_inside_a_job(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match=r"--output: found the relative path 'runs/x'"):
        absolute("runs/x", "--output")
    assert absolute("/shared/x", "--output") == "/shared/x"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: TrainingConfig(batch_size=-1),
            "batch_size: found -1, expected a whole number abo",
        ),
        (
            lambda: TrainingConfig(batch_size=12.5),
            "batch_size: found 12.5, expected a whole number",
        ),
        (lambda: TrainingConfig(batch_size=True), "batch_size: found True"),
        (lambda: TrainingConfig(cpus_per_worker=0), "a whole number above 0 or nothing"),
        (lambda: TrainingConfig(precision="fp16"), "found 'fp16', expected fp32, bf16, auto"),
        (lambda: StageConfig(learning_rate=0), "learning_rate: found 0, expected a number above 0"),
        (lambda: StageConfig(decay_fraction=2), "expected a number from 0 to 1"),
        (lambda: DistillationConfig(weight_factors={"a": -1}), "a number of at least 0 for each"),
        (lambda: DistillationConfig(stage_one=None), "stage_one: found nothing, expected options"),
        (lambda: TextConfig(encoder=None), "TextConfig.encoder: found nothing, expected text"),
    ],
)
def test_what_is_made_in_python_is_checked_too(make, words):
    with pytest.raises(UserError, match=re.escape(words)):
        make()


def test_embeddings_are_read_once_for_a_grid_of_trials(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr("sdn_ray.training.checks.read_precomputed", reads.append)
    text = TextConfig(embeddings=str(tmp_path / "a.npz"))
    for seed in range(3):
        check_experiment(ExperimentConfig(teacher=FIT, text=text, seed=seed))
    assert reads == [str(tmp_path / "a.npz")]


def test_a_folder_of_an_earlier_version_has_no_whitening(tmp_path):
    whole = to_yaml(ExperimentConfig())
    (tmp_path / "new.yaml").write_text(whole)
    (tmp_path / "old.yaml").write_text(whole.replace("  whiten: true\n", ""))
    assert read_kept_experiment(tmp_path / "new.yaml") == ExperimentConfig()
    old = read_kept_experiment(tmp_path / "old.yaml")
    assert old == replace(ExperimentConfig(), text=TextConfig(whiten=False))
