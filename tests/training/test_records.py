from unittest.mock import Mock

from sdn_ray.training.records import record_epoch, telling


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
