import contextlib
import json
import shutil
import threading
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from sdn_ray.data.image_sets import ImageReader, read_image_set, read_real
from sdn_ray.data.references import part_rows, read_reference
from sdn_ray.errors import UserError
from sdn_ray.evaluate import main as evaluate
from sdn_ray.generate import main as generate
from sdn_ray.metrics.classifier_score import classifier_score
from sdn_ray.metrics.color_agreement import (
    ColorClassifier,
    color_agreement,
    color_histogram,
    named_color,
)
from sdn_ray.metrics.fsim import fsim
from sdn_ray.metrics.ssim import ssim
from sdn_ray.metrics.variety import ssim_between_captions
from sdn_ray.models.classifiers import load_classifier
from sdn_ray.models.export import load_model
from sdn_ray.scoring import run as scoring_run

SPLITS = ("--splits", 4)


@pytest.fixture(scope="module")
def squeezenet(best_material):
    return best_material.classifier


def run(command, *arguments):
    return command([str(argument) for argument in arguments])


def scores_of(tmp_path, squeezenet, *arguments):
    """The JSON that `evaluate` writes."""
    output = tmp_path / "scores.json"
    options = ["--classifier", squeezenet, *SPLITS, "--output", output]
    assert run(evaluate, *arguments, *options) == 0
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def generated(ray_cluster, reference, diverse_model, tmp_path_factory):
    """Images of the first three captions of the twenty test photographs."""
    out = tmp_path_factory.mktemp("evaluate") / "generated"
    request = ["--model", diverse_model, "--reference", reference, "--captions_per_image", 3]
    assert run(generate, *request, "--output", out) == 0
    return out


@pytest.fixture(scope="module")
def by_model(ray_cluster, reference, diverse_model, squeezenet, tmp_path_factory):
    """What the same images score when their model draws them on the way, in actors."""
    options = ["--model", diverse_model, "--reference", reference, "--captions_per_image", 3]
    folder = tmp_path_factory.mktemp("by_model")
    return scores_of(folder, squeezenet, *options, "--workers", 1)


def test_a_folder_and_the_model_that_drew_it_score_the_same(
    generated, by_model, reference, squeezenet, tmp_path, capsys
):
    found = scores_of(tmp_path, squeezenet, "--images", generated, "--reference", reference)
    report = found["generated"]
    images = read_image_set(generated)
    pixels = np.stack([ImageReader()(image) for image in images])
    classifier = load_classifier(squeezenet)
    expected = classifier_score(pixels, classifier, splits=4, seed=0)
    assert report["scores"]["squeezenet1_1_score"] == pytest.approx(expected.mean, rel=1e-5)
    assert report["scores"]["squeezenet1_1_score_std"] == pytest.approx(expected.std, rel=1e-4)

    rows = part_rows(read_reference(reference), "test", None)
    photographs = np.stack([read_real(row.image_path, 32, 32) for row in rows])
    expected = classifier_score(np.repeat(photographs, 3, 0), classifier, splits=4, seed=0)
    assert report["real_scores"]["squeezenet1_1_score"] == pytest.approx(expected.mean, rel=1e-5)
    pairs = list(zip(photographs, pixels[::3], strict=True))
    assert report["scores"]["ssim"] == pytest.approx(np.mean([ssim(*pair) for pair in pairs]))
    assert report["scores"]["fsim"] == pytest.approx(np.mean([fsim(*pair) for pair in pairs]))
    for side, shown in (("scores", pixels[::3]), ("real_scores", photographs)):
        captioned = [(row.captions[0], image) for row, image in zip(rows, shown, strict=True)]
        expected = ssim_between_captions(captioned)
        assert report[side]["ssim_between_captions"] == pytest.approx(expected.mean)
        assert report[side]["ssim_of_nearest_pair"] == pytest.approx(expected.nearest)
    assert (report["images"], report["real_images"], report["kid_subset"]) == (60, 20, 20)
    assert report["classifier"] == "squeezenet1_1"
    assert "227x227" in report["pixels"]
    assert (report["splits"], report["shuffled_with_seed"]) == (4, 0)
    table = capsys.readouterr().out
    assert "real, repeated, 32×32" in table

    [same] = by_model.values()
    for name, value in report["scores"].items():
        assert same["scores"][name] == pytest.approx(value, rel=1e-3), name


def color_agreements(reference, model):
    """What `--colors` should find, without Ray."""
    train, test = (part_rows(read_reference(reference), part, None) for part in ("train", "test"))
    histograms = [color_histogram(read_real(row.image_path, 64, 64)) for row in train]
    colors = ColorClassifier(np.stack(histograms), [named_color(row.captions[0]) for row in train])
    captions = [row.captions[0] for row in test]
    drawn = np.concatenate(list(load_model(model).draw(captions)))
    sets = {
        "real": [read_real(row.image_path, 32, 32) for row in test],
        "copies": [read_real(row.image_path, 48, 48) for row in test],
        "drawn": [drawn[place, place % 2] for place in range(len(test))],
    }
    said = [named_color(caption) for caption in captions]
    return {name: color_agreement(said, colors(images)) for name, images in sets.items()}


def test_several_sets_stand_in_one_table(
    ray_cluster, reference, tracked_model, squeezenet, tmp_path, capsys
):
    model, client, run_id = tracked_model
    stems = tmp_path / "elsewhere"  # made by another system: named by the source images' stems
    stems.mkdir()
    for row in part_rows(read_reference(reference), "test", None):
        Image.fromarray(read_real(row.image_path, 48, 48)).save(
            stems / f"{row.image_path.stem}.png"
        )
    found = scores_of(
        tmp_path,
        squeezenet,
        *("--images", f"sdn={model}", f"copies={stems}", "--reference", reference),
        *("--captions_per_image", 1, "--colors"),
    )
    assert list(found) == ["sdn", "copies"]
    copies = found["copies"]
    assert copies["scores"]["ssim"] == pytest.approx(1)
    assert copies["scores"]["fsim"] == pytest.approx(1)
    assert copies["scores"]["squeezenet1_1_fid"] == pytest.approx(0, abs=1e-6)
    assert copies["scores"]["squeezenet1_1_score"] == copies["real_scores"]["squeezenet1_1_score"]
    assert found["sdn"]["scores"]["squeezenet1_1_fid"] > 1
    expected = color_agreements(reference, model)
    assert 0.4 < expected["real"] < 1
    for report in found.values():
        assert (report["color_pairs"], report["color_images"]) == (20, 40)
        assert report["real_scores"]["color_agreement"] == expected["real"]
    assert found["sdn"]["scores"]["color_agreement"] == expected["drawn"]
    assert copies["scores"]["color_agreement"] == expected["copies"]
    table = capsys.readouterr().out
    assert "sdn" in table
    assert "copies" in table
    recorded = client.get_run(run_id).data.metrics
    assert recorded["evaluate/fsim"] == found["sdn"]["scores"]["fsim"]
    score = found["sdn"]["real_scores"]["squeezenet1_1_score"]
    assert recorded["evaluate/real_squeezenet1_1_score"] == score


def test_a_scoring_actor_that_is_killed_changes_nothing(
    by_model, reference, diverse_model, squeezenet, tmp_path, monkeypatch
):
    options = ["--model", diverse_model, "--reference", reference, "--captions_per_image", 3]
    options += ["--workers", 1]
    killed = []

    def kill_one():
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    # An actor shows its method while it works: it dies in the middle of a batch.
                    shown = " ".join(process.cmdline())
                    if "MapWorker" in shown and ".submit" in shown:
                        process.kill()
                        killed.append(process.pid)
                        return
            time.sleep(0.01)

    def disturbed_scoring(*arguments):  # the actors before it look at files, and score nothing
        thread.start()
        score_sets(*arguments)

    thread, score_sets = threading.Thread(target=kill_one), scoring_run.score_sets
    monkeypatch.setattr(scoring_run, "score_sets", disturbed_scoring)
    disturbed = scores_of(tmp_path, squeezenet, *options)
    thread.join()
    assert killed
    assert disturbed == by_model


def test_bad_images_are_named_or_left_out(generated, reference, squeezenet, tmp_path, capsys):
    images = tmp_path / "images"
    shutil.copytree(generated, images)
    options = ["--images", images, "--reference", reference]
    broken, grey = images / "00007.png", images / "00030.png"
    broken.write_bytes(broken.read_bytes()[:100])
    Image.new("L", (32, 32)).save(grey)
    with pytest.raises(UserError, match=r"00007\.png: does not decode.*1 more such.*--skip_bad"):
        scores_of(tmp_path, squeezenet, *options)
    [report] = scores_of(tmp_path, squeezenet, *options, "--skip-bad").values()
    assert (report["images"], report["real_images"]) == (58, 20)
    assert [reason.partition(".png")[0][-5:] for reason in report["left_out"]] == ["00007", "00030"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "left out" in printed
    assert "00030.png: found an image of mode L, expected RGB" in printed


def test_what_cannot_be_scored_is_one_clear_error(
    ray_cluster, generated, reference, squeezenet, tmp_path
):
    def refused(*arguments, classifier=squeezenet):
        with pytest.raises(UserError) as error:
            run(evaluate, *arguments, "--classifier", classifier)
        return str(error.value)

    images = ["--images", generated]
    assert "60 images, expected at least 100" in refused(*images, "--splits", 100)
    other = f"alexnet:{squeezenet.partition(':')[2]}"
    assert "not the weights of alexnet" in refused(*images, classifier=other)
    stranger = tmp_path / "strangers"
    stranger.mkdir()
    Image.new("RGB", (32, 32)).save(stranger / "somebody.png")
    error = refused("--images", stranger, "--reference", reference, "--splits", 1)
    assert "somebody.png: its source somebody is not among the 20 real images" in error
    assert "expected each once" in refused(*images, generated)
    assert "one of --images, --model and --text_encoder" in refused(*images, "--model", generated)
    assert "--splits: found 0" in refused(*images, "--splits", 0)
    assert "--reference: found none; with --colors" in refused(*images, "--colors")
    sized = (*images, "--compare_size")
    assert "--reference: found none; with --compare_size" in refused(*sized, 64)
    error = refused(*sized, 8, "--reference", reference)
    assert "--compare_size: found 8, expected 11 to 1024" in error
    seen = ("--reference", reference, "--split", "train", "--colors")
    assert "--split: found train, whose images --colors is fitted on" in refused(*images, *seen)
    colorless = tmp_path / "colorless"
    shutil.copytree(reference, colorless)
    for file in (colorless / "text_c10").rglob("image_*.txt"):
        file.write_text("a red flower")
    error = refused(*images, "--reference", colorless, "--colors")
    assert "name 1 colours (red); expected two or more of black, white" in error
