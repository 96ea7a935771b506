import pytest
from optuna.trial import TrialState

from sdn_ray.config import EvaluationConfig, ExperimentConfig
from sdn_ray.errors import UserError
from sdn_ray.search.plan import StudyPlan, StudySettings
from sdn_ray.search.report import pictures
from sdn_ray.search.space import read_search_space
from sdn_ray.search.study import (
    LAST_EPOCH,
    REASON,
    RUNG,
    StudySearch,
    check_study,
    open_study,
    trials_left,
)
from sdn_ray.search.trial import TrialSummary
from sdn_ray.training.records import OBJECTIVE


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("distillation.stage_two.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}\n")
    return read_search_space(path)


def opened(folder, space, **settings):
    """The study of a plan whose folder is called mine."""
    settings = {"trials": 6, "study_storage": f"sqlite:///{folder}/study.db"} | settings
    evaluation = EvaluationConfig(classifier="squeezenet1_1")  # more is better
    config = ExperimentConfig(seed=settings.pop("seed", 0), evaluation=evaluation)
    return open_study(StudyPlan(folder / "mine", config, space, StudySettings(**settings)))


@pytest.fixture
def study(tmp_path, space):
    def again(**settings):
        return opened(tmp_path, space, **settings)

    return again


def end(search, trial_id, value):
    search.on_trial_complete(trial_id, {OBJECTIVE: value, REASON: ""})


def test_one_seed_draws_the_same_trials_again(tmp_path, space):
    def drawn(name, sampler="tpe"):
        storage = f"sqlite:///{tmp_path}/{name}.db"
        settings = {"study_storage": storage, "sampler": sampler, "seed": 3, "trials": 12}
        study = opened(tmp_path, space, prune=False, **settings)
        search = StudySearch(study, space, 12, lambda trial: None)
        values = []
        for number in range(12):
            values.append(search.suggest(str(number))["values"])
            end(search, str(number), sum(values[-1].values()))
        return values

    first = drawn("a")
    assert first == drawn("b")
    # A third at random, as the random sampler draws them; from there TPE goes by what it found.
    at_random = drawn("c", "random")
    assert at_random[:4] == first[:4]
    assert at_random[4] != first[4]


def test_a_search_that_was_cut_off_goes_on_with_what_is_left(study, space):
    ended = []
    search = StudySearch(study(), space, 6, ended.append)
    first = [search.suggest(name) for name in "abcd"]
    end(search, "a", 1.0)
    search.on_trial_complete("b", error=True)
    search.on_trial_complete("c", {REASON: "the loss became nan"})
    assert [trial.number for trial in ended] == [0, 1, 2]
    # A kill comes here, while trial d runs.
    again = study()
    assert trials_left(again, 6) == 3
    search = StudySearch(again, space, 6, ended.append)
    rest = [search.suggest(name) for name in "efg"]
    assert rest[0]["values"] == first[3]["values"]
    assert [trial["number"] for trial in rest] == [3, 4, 5]
    assert search.suggest("h") == "FINISHED"
    for name in "efg":
        end(search, name, 2.0)
    states = [trial.state for trial in again.trials]
    assert (
        states
        == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL] + [TrialState.COMPLETE] * 3
    )
    assert again.trials[2].user_attrs[REASON] == "the loss became nan"
    assert "died" in again.trials[1].user_attrs[REASON]
    assert trials_left(again, 6) == 0


def test_a_trial_is_pruned_by_what_others_had_after_as_many_epochs_of_the_last_stage(study, space):
    search = StudySearch(study(), space, 8, lambda trial: None)
    for number in range(4):
        search.suggest(f"good {number}")
        for epoch in (1, 2, 3):
            assert not search.prune(f"good {number}", {OBJECTIVE: 5.0 + epoch, RUNG: epoch})
        end(search, f"good {number}", 8.0)
    search.suggest("poor")
    assert search.prune("poor", {OBJECTIVE: 1.0, RUNG: 1})
    search.on_trial_complete("poor", {OBJECTIVE: 1.0, RUNG: 1})
    assert study().trials[4].state == TrialState.PRUNED
    search.suggest("better")
    assert not search.prune("better", {OBJECTIVE: 9.0, RUNG: 1})


def test_a_trial_that_has_trained_its_last_epoch_is_never_pruned(study, space):
    ended = []
    search = StudySearch(study(), space, 8, ended.append)
    for number in range(4):
        search.suggest(f"good {number}")
        search.prune(f"good {number}", {OBJECTIVE: 5.0, RUNG: 1, LAST_EPOCH: False})
        end(search, f"good {number}", 8.0)
    search.suggest("poor")
    last = {OBJECTIVE: 1.0, RUNG: 1, LAST_EPOCH: True}
    assert not search.prune("poor", last)
    end(search, "poor", 1.0)
    assert ended[-1].state == TrialState.COMPLETE
    assert ended[-1].value == 1.0
    assert ended[-1].intermediate_values == {1: 1.0}  # what others are judged by
    search.suggest("as poor, with an epoch to go")
    assert search.prune("as poor, with an epoch to go", last | {LAST_EPOCH: False})


def test_an_epoch_as_tune_is_told_of_it():
    summary = TrialSummary("validation/ssim", epochs_before=2, epochs=5)
    metrics = {"epoch": 2, "stage": "stage_one", "loss": 3.0, "validation/ssim": 0.2, "other": 1}
    kept = {"epoch": 2, "stage": "stage_one", "loss": 3.0, OBJECTIVE: 0.2}
    assert summary(metrics) == kept | {RUNG: 0, LAST_EPOCH: False}
    assert summary(metrics | {"epoch": 4}) == kept | {"epoch": 4, RUNG: 2, LAST_EPOCH: False}
    assert summary(metrics | {"epoch": 5}) == kept | {"epoch": 5, RUNG: 3, LAST_EPOCH: True}
    other_worker = summary({"epoch": 5, "stage": "stage_two"})
    assert other_worker == {"epoch": 5, "stage": "stage_two", RUNG: 3, LAST_EPOCH: True}


def test_without_pruning_every_trial_ends_by_itself(study, space):
    search = StudySearch(study(prune=False), space, 8, lambda trial: None)
    search.suggest("good")
    search.prune("good", {OBJECTIVE: 5.0, RUNG: 1})
    end(search, "good", 5.0)
    search.suggest("poor")
    assert not search.prune("poor", {OBJECTIVE: 1.0, RUNG: 1})


def test_a_grid_is_tried_once_even_when_it_goes_on(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("distillation.scheme: {grid: [image, sdn]}\nseed: {grid: [0, 1]}\n")
    space = read_search_space(path)
    search = StudySearch(opened(tmp_path, space), space, 4, lambda trial: None)
    tried = [search.suggest("a")["values"], search.suggest("b")["values"]]
    end(search, "a", 1.0)
    end(search, "b", 1.0)
    search = StudySearch(opened(tmp_path, space), space, 4, lambda trial: None)
    tried += [search.suggest("c")["values"], search.suggest("d")["values"]]
    assert tried == space.grid()
    assert search.suggest("e") == "FINISHED"


def test_pictures_of_a_study(study, space, tmp_path):
    opened = study()
    assert pictures(opened, tmp_path, "validation/ssim") == []
    search = StudySearch(opened, space, 3, lambda trial: None)
    for number, value in enumerate((1.0, 3.0, 2.0)):
        search.suggest(str(number))
        end(search, str(number), value)
    assert [path.name for path in pictures(opened, tmp_path, "validation/ssim")] == [
        "history.png",
        "importances.png",
    ]
    assert (tmp_path / "history.png").stat().st_size > 5000


def test_a_search_that_goes_on_draws_no_trial_twice(study, space):
    def drawn(count):
        search = StudySearch(study(sampler="random"), space, 6, lambda trial: None)
        found = []
        for name in range(count):
            found.append(search.suggest(str(name))["values"])
            end(search, str(name), 1.0)
        return [next(iter(values.values())) for values in found]

    assert len(set(drawn(3) + drawn(3))) == 6


def test_a_storage_that_is_wrong_taken_or_has_lost_the_study(study, tmp_path):
    study()
    storage = f"sqlite:///{tmp_path}/study.db"
    check_study("mine", storage, new=False, begun=True)
    check_study("other", storage, new=True)
    with pytest.raises(UserError, match="has a study mine already"):
        check_study("mine", storage, new=True)
    with pytest.raises(UserError, match="has no study other, though its folder has trials"):
        check_study("other", storage, new=False, begun=True)
    with pytest.raises(UserError, match=r"gone\.db has no study mine"):
        check_study("mine", f"sqlite:///{tmp_path}/gone.db", new=False, begun=True)
    with pytest.raises(UserError, match="--study_storage: nonsense cannot be used"):
        check_study("mine", "nonsense", new=True)
