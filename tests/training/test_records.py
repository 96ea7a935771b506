from sdn_ray.training.records import telling


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
