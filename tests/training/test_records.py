from unittest.mock import Mock

import pytest

from sdn_ray.runs.folder import note_epoch
from sdn_ray.training import records
from sdn_ray.training.records import Curves, collapse, record_epoch, telling


def test_an_epoch_is_a_few_figures():
    metrics = {
        "epoch": 7,
        "stage": "stage_two",
        "loss": 1.18765,
        "images_per_second": 408.2,
        "validation/ssim": 0.4031,
        "validation/perceptual_distance": 0.78512,
        "validation/petal_color": 0.971,
        "terms/conv1_1": 0.2,
    }
    assert telling(metrics, "validation") == ["loss 1.19", "distance 0.785", "SSIM 0.403"]
    scored = metrics | {"validation/squeezenet1_1_score": 2.8123}
    assert telling(scored, "validation")[2:] == ["score 2.81", "SSIM 0.403"]
    assert telling({"loss": 0.5}, "train") == ["loss 0.5"]
    varied = {"loss": 0.5, "train/ssim": 0.4, "train/l1_between_draws": 0.01234}
    assert telling(varied, "train") == ["loss 0.5", "SSIM 0.4", "between draws 0.0123"]


def test_the_objective_of_a_trial_comes_first(tmp_path):
    recorder = Mock()
    record = {"epoch": 2, "stage": "stage_one", "loss": 3.0, "validation/ssim": 0.5}
    record_epoch(tmp_path, record, recorder, "validation/ssim")
    values, epoch = recorder.metrics.call_args.args
    assert epoch == 2
    assert list(values.items()) == [
        ("objective", 0.5),
        ("stage_one/loss", 3.0),
        ("validation/ssim", 0.5),
    ]
    record_epoch(tmp_path, record, recorder)
    assert "objective" not in recorder.metrics.call_args.args[0]


def test_only_pictures_that_are_there_are_recorded(tmp_path):
    recorder, record = Mock(), {"epoch": 3, "stage": "stage_one", "loss": 3.0}
    record_epoch(tmp_path, record, recorder)
    recorder.file.assert_not_called()
    (tmp_path / "samples").mkdir()
    curves, sheet = tmp_path / "curves.png", tmp_path / "samples" / "epoch-0003.png"
    for picture in (curves, sheet):
        picture.write_bytes(b"png")
    record_epoch(tmp_path, record, recorder)
    assert [call.args for call in recorder.file.call_args_list] == [(curves,), (sheet, "samples")]


def test_curves_are_drawn_now_and_then_and_when_asked(tmp_path, monkeypatch):
    drawn, now = [], Mock(return_value=100)
    monkeypatch.setattr(
        records, "loss_curves", lambda path, history, stages, attributes: drawn.append(stages)
    )
    monkeypatch.setattr(records.time, "monotonic", now)
    curves = Curves(tmp_path)
    curves.draw()
    assert drawn == []  # no epoch yet
    epochs = ((110, "one"), (129, "one"), (130, "one"), (159, "two"))
    for epoch, (now.return_value, stage) in enumerate(epochs, 1):
        note_epoch(tmp_path, {"epoch": epoch, "stage": stage})
        curves.after_epoch()
    assert drawn == [["one", "one", "one"]]
    curves.draw()
    assert drawn[1:] == [["one", "one", "one", "two"]]
    now.return_value = 189
    curves.after_epoch()
    assert len(drawn) == 3


def differences(draws=None, captions=None, real=0.2):
    names = ("l1_between_draws", "l1_between_captions", "l1_within_classes_of_real_images")
    values = dict(zip(names, (draws, captions, real), strict=True))
    return {f"validation/{name}": value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (differences(0.04, 0.1), "two draws of one caption differ by 0.040"),
        (differences(0.1, 0.0333), "draws of two captions differ by 0.033"),
        (
            differences(0.0, 0.01),
            "two draws of one caption differ by 0.000 and draws of two captions differ by 0.010",
        ),
        (differences(0.049), "two draws of one caption differ by 0.049"),
    ],
)
def test_pictures_that_have_become_alike_are_told_in_one_sentence(metrics, words):
    assert collapse(metrics, "validation") == (
        f"the pictures have become alike (mode collapse): {words}, two real images of one class by "
        "0.200. Below 25% of that this is said; try lower or less equal learning rates, or go back "
        "to an earlier epoch"
    )
    assert collapse(metrics, "train") is None


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        differences(),
        differences(0.0, 0.0, real=None),  # nothing to compare them with
        differences(0.05, 0.06),
        differences(0.3, 0.4),
    ],
)
def test_pictures_that_differ_are_not_warned_of(metrics):
    assert collapse(metrics, "validation") is None
