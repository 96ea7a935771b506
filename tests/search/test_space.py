from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from sdn_ray.config import (
    DatasetConfig,
    EvaluationConfig,
    ExperimentConfig,
    TeacherConfig,
    TrainingConfig,
)
from sdn_ray.errors import UserError
from sdn_ray.runs.experiment import read_experiment
from sdn_ray.search.plan import StudyPlan, StudySettings
from sdn_ray.search.space import read_search_space

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture
def space(tmp_path):
    def read(text):
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return read_search_space(path)

    return read


def test_rows_are_options_that_go_together(space):
    found = space(
        "rows:\n"
        "  SDN: {distillation.scheme: joint, training.batch_size: 6}\n"
        "  other: {method: gan_int_cls, gan_int_cls.epochs: 3}\n"
        "seed: {grid: [4, 5]}\n"
    )
    grid = found.grid()
    assert grid == [{"row": name, "seed": seed} for name in ("SDN", "other") for seed in (4, 5)]
    configs = [found.apply(ExperimentConfig(), values) for values in grid]
    assert [one.method for one in configs] == ["sdn", "sdn", "gan_int_cls", "gan_int_cls"]
    assert [one.seed for one in configs] == [4, 5, 4, 5]
    assert configs[0].distillation.scheme == "joint"
    assert configs[0].training.batch_size == 6
    assert configs[2].gan_int_cls.epochs == 3
    assert configs[2].training.batch_size == ExperimentConfig().training.batch_size
    assert found.is_grid
    assert found.varies("gan_int_cls.")
    assert not found.varies("text.")
    assert not found.varies("teacher.")


def test_a_row_may_be_a_folder_of_images_that_is_no_trial(space):
    found = space("rows: {A: {images: /a}, SDN: {}, GAWWN: {method: gawwn}}\nseed: {grid: [4]}")
    assert found.folders == {"A": Path("/a")}
    assert [values["row"] for values in found.grid()] == ["SDN", "GAWWN"]
    # Whatever the method of the experiment, it is not that of a folder.
    flowers = ExperimentConfig(method="gawwn", dataset=DatasetConfig("oxford_flowers"))
    sdn = space("rows: {A: {images: /a}, SDN: {method: sdn}, GAWWN: {}}").fitting(flowers)
    assert [values["row"] for values in sdn.grid()] == ["SDN"]
    assert list(sdn.left_out) == ["GAWWN"]


@pytest.mark.parametrize(
    ("settings", "classifier", "words"),
    [
        ({}, "squeezenet1_1:/w", "--score_test: found false with .*, whose row A is a folder"),
        ({"score_test": True}, None, "evaluation.classifier: found none with .*whose row A is a"),
    ],
)
def test_what_a_row_of_images_needs(space, tmp_path, settings, classifier, words):
    config = ExperimentConfig(
        teacher=TeacherConfig(plan="4,M,8", weights="fit"),
        evaluation=EvaluationConfig(classifier=classifier),
    )
    found = space("rows: {SDN: {}, A: {images: /a}}")
    with pytest.raises(UserError, match=words):
        StudyPlan(tmp_path, config, found, StudySettings(**settings)).check()


def test_a_figure_of_the_best_needs_a_table(space, tmp_path):
    config = ExperimentConfig(teacher=TeacherConfig(plan="4,M,8", weights="fit"))
    for number, words in ((16, "found 16 without --score_test"), (65, "found 65, expected 1 to")):
        plan = StudyPlan(tmp_path, config, space(ROWS), StudySettings(best_of=number))
        with pytest.raises(UserError, match=f"--best_of: {words}"):
            plan.check()


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_shipped_spaces_fit_the_shipped_jobs(path):
    jobs = {
        "quickstart": "quickstart",
        "table3_schemes": "table3",
        "table1_methods": "table1_flowers64",
        "table1_published": "table1_cub",
        "table1_quickstart": "table1_quickstart",
    }
    job = jobs.get(path.stem, "flowers64")
    read_search_space(path).check(read_experiment(JOBS / f"{job}.yaml"))


def test_rows_that_the_data_set_cannot_be_trained_with_are_left_out(space):
    found = space(
        "rows:\n"
        "  SDN: {dataset.image_size: 32}\n"
        "  GAWWN: {method: gawwn}\n"
        "seed: {grid: [4, 5]}\n"
        "total_epochs: 4\n"
        "stage_one_fraction: {grid: [0.5]}\n"
    )
    flowers = ExperimentConfig(dataset=DatasetConfig("oxford_flowers"))
    fitting = found.fitting(flowers)
    assert {values["row"] for values in fitting.grid()} == {"SDN"}
    assert len(fitting.grid()) == 2
    why = "oxford_flowers, which has neither boxes nor parts"
    assert fitting.left_out == {"GAWWN": why}
    assert list(fitting.rows) == ["SDN", "GAWWN"]
    for name in ("cub", "synthetic_flowers"):
        assert found.fitting(ExperimentConfig(dataset=DatasetConfig(name))) is found
    # The method of rows that name none is the experiment's.
    alone = space("rows: {GAWWN: {seed: 1}}")
    with pytest.raises(UserError, match="rows: found none that can be trained on oxford_flowers"):
        alone.fitting(replace(flowers, method="gawwn"))


ROWS = "rows: {SDN: {}, GAN: {method: gan_int_cls}}\n"


@pytest.mark.parametrize(
    ("text", "workers", "words"),
    [
        ("seed: {grid: [0]}", 1, "--equal_minutes: found it with .*, which has no rows"),
        (ROWS, 2, "training.workers: found 2 with --equal_minutes"),
        (
            "rows: {SDN: {}}\ndistillation.stage_two.epochs: {grid: [1]}",
            1,
            "--equal_minutes: it settles the epochs, which .* varies by distillation.stage_two.ep",
        ),
    ],
)
def test_what_equal_time_is_refused_with(space, tmp_path, text, workers, words):
    config = ExperimentConfig(
        teacher=TeacherConfig(plan="4,M,8", weights="fit"),
        training=TrainingConfig(workers=workers),
    )
    settings = StudySettings(equal_minutes=3.0)
    with pytest.raises(UserError, match=words):
        StudyPlan(tmp_path, config, space(text), settings).check()


def test_distributions_are_those_of_optuna(space):
    found = space(
        "distillation.stage_one.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}\n"
        "distillation.weight_factors.conv1: {uniform: [0, 2]}\n"
        "generator.fc_width: {int: [16, 64]}\n"
        "distillation.scheme: {choice: [sdn, joint]}\n"
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    values = found.suggest(trial)
    distributions = optuna.distributions
    assert trial.distributions == {
        "distillation.stage_one.learning_rate": distributions.FloatDistribution(
            1e-4, 1e-2, log=True
        ),
        "distillation.weight_factors.conv1": distributions.FloatDistribution(0, 2),
        "generator.fc_width": distributions.IntDistribution(16, 64),
        "distillation.scheme": distributions.CategoricalDistribution(("sdn", "joint")),
    }
    config = found.apply(ExperimentConfig(), values)
    assert config.distillation.stage_one.learning_rate == values[next(iter(values))]
    assert config.distillation.weight_factors == {
        "conv1": values["distillation.weight_factors.conv1"]
    }
    assert config.generator.fc_width == values["generator.fc_width"]
    assert config.distillation.scheme == values["distillation.scheme"]
    assert not found.is_grid


@pytest.mark.parametrize(
    ("fraction", "epochs"), [(0.0, (1, 11)), (0.25, (3, 9)), (0.5, (6, 6)), (1.0, (11, 1))]
)
def test_total_epochs_are_split_by_the_fraction(space, fraction, epochs):
    found = space("total_epochs: 12\nstage_one_fraction: {uniform: [0, 1]}\n")
    d = found.apply(ExperimentConfig(), {"stage_one_fraction": fraction}).distillation
    assert (d.stage_one.epochs, d.stage_two.epochs) == epochs


def test_a_grid_is_every_combination(space):
    found = space("distillation.scheme: {grid: [image, sdn]}\nseed: {grid: [0, 1, 2]}\n")
    assert found.is_grid
    assert [tuple(values.values()) for values in found.grid()] == [
        *(("image", 0), ("image", 1), ("image", 2)),
        *(("sdn", 0), ("sdn", 1), ("sdn", 2)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no names with values"),
        ("- 1", "no names with values"),
        ("a: {", "cannot be read"),
        ("total_epochs: 4", "found no parameter with a distribution"),
        ("seed: {int: [0, 1]}\n\nsead: {int: [0, 1]}", "line 3: sead: is no option.*seed"),
        ("tracking.uri: {choice: [a]}", "line 1: tracking.uri: is no option of a trial"),
        ("seed: {int: [0, 1]}\nseed: {int: [0, 1]}", "line 2: seed found twice"),
        ("dataset.image_size: {choice: [32, 64]}", "line 1: dataset.image_size: settles which"),
        ("seed: {int: [0, 1]}\nevaluation.images: {int: [1, 9]}", "line 2: evaluation.images: set"),
        ("training.workers: {int: [1, 2]}", "what all trials reserve"),
        ("seed: 3", "line 1: seed: found 3, expected one of loguniform"),
        ("seed: {normal: [0, 1]}", "line 1: seed: found {'normal': .*expected one of"),
        ("seed: {int: [0]}", r"line 1: seed: int: found \[0\], expected two whole numbers"),
        ("seed: {int: [0, 1.5]}", r"found \[0, 1.5\], expected two whole numbers"),
        ("seed: {int: [4, 4]}", r"found the empty range \[4, 4\]"),
        ("seed: {choice: []}", r"found \[\], expected a list with values"),
        ("seed: {choice: [[1]]}", "expected plain values"),
        (
            "distillation.stage_one.learning_rate: {loguniform: [1e-4, 1e-2]}",
            "YAML reads 1e-4 as text",
        ),
        (
            "distillation.stage_one.learning_rate: {loguniform: [0, 1]}",
            "found the low end 0, expected more than 0",
        ),
        ("seed: {grid: [0]}\ngenerator.fc_width: {int: [1, 2]}", "line 2: found a distribution"),
        ("total_epochs: 4\nseed: {int: [0, 1]}", "belong together"),
        ("stage_one_fraction: {uniform: [0, 1]}", "belong together"),
        (
            "total_epochs: 4\nstage_one_fraction: {uniform: [0, 1]}\n"
            "distillation.stage_one.epochs: {int: [1, 2]}",
            "beside total_epochs",
        ),
        ("rows: {}", "line 1: rows: found {}, expected settings by name"),
        ("rows: {A: {images: /a}}", "line 1: rows: found folders of images alone"),
        (
            "rows: {B: {}, A: {images: a}}",
            "A: found .*'a'}, expected beside images no other .*path",
        ),
        ("rows: {B: {}, A: {images: [/a]}}", "A: found .* expected beside images no other option"),
        (
            "rows: {B: {}, A: {images: /a, seed: 1}}",
            "A: found .*'seed': 1}, expected beside images",
        ),
        ("rows: {SDN: 3}", "line 1: rows: SDN: found 3, expected options with a value each"),
        ("seed: {grid: [0]}\nrows: {SDN: {schem: a}}", "line 2: rows: SDN: schem: is no option"),
        ("rows: {SDN: {dataset.name: cub}}", "SDN: dataset.name: settles which"),
        ("dataset.image_size: {grid: [32]}", "dataset.image_size: settles which"),
        ("rows: {SDN: {seed: 1}}\ngenerator.fc_width: {int: [1, 2]}", "line 2: found a distribu"),
        ("total_epochs: 1\nstage_one_fraction: {uniform: [0, 1]}", "line 1: total_epochs: found 1"),
    ],
)
def test_what_is_no_search_space(space, text, message):
    with pytest.raises(UserError, match=message):
        space(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: {SDN: {seed: -1}}", "line 1: row cannot be SDN"),
        ("rows: {SDN: {method: gam}}", "line 1: row cannot be SDN"),
        ("seed: {int: [-1, 4]}", "line 1: seed cannot be -1"),
        ("seed: {int: [0, 1]}\ndistillation.scheme: {choice: [sdn, gan]}", "line 2: .* be gan"),
        ("generator.batch_norm: {choice: [true, perhaps]}", "batch_norm cannot be perhaps"),
        ("distillation.weight_factors.conv1: {uniform: [-1, 1]}", "conv1 cannot be -1"),
        (
            "training.precision: {choice: [fp32, auto]}",
            "line 1: training.precision cannot be auto, .*expected fp32 and bf16",
        ),
    ],
)
def test_values_that_no_experiment_can_have_name_their_line(space, text, message):
    with pytest.raises(UserError, match=message):
        space(text).check(ExperimentConfig())
