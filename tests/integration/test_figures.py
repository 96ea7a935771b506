import numpy as np
import pytest
from PIL import Image

from sdn_ray import figures
from sdn_ray.data.image_sets import read_real
from sdn_ray.data.references import part_rows, read_reference, source_name
from sdn_ray.errors import UserError
from sdn_ray.metrics.fsim import fsim
from sdn_ray.models.drawing import draw_samples
from sdn_ray.models.export import load_model
from sdn_ray.pictures import comparison_rows


@pytest.fixture
def drawn(monkeypatch):
    """What each figure was made of, in the order in which they were drawn."""
    calls = []

    def record(path, rows, columns, images, **options):
        calls.append({"rows": rows, "columns": columns, "images": images} | options)
        comparison_rows(path, rows, columns, images, **options)

    for module in ("comparison", "figures"):
        monkeypatch.setattr(f"sdn_ray.scoring.{module}.comparison_rows", record)
    return calls


@pytest.fixture
def rows(reference):
    return part_rows(read_reference(reference), "test", None)


def run(*arguments):
    return figures.main([str(argument) for argument in arguments])


def is_picture(path):
    with Image.open(path) as image:
        return image.mode == "RGB" and min(image.size) > 128


def test_comparison_has_a_row_a_caption_and_a_column_a_set(
    reference, rows, diverse_model, drawn, tmp_path
):
    others = tmp_path / "others"
    others.mkdir()
    for row in rows[3:12]:  # the other system drew some of the captions
        Image.new("RGB", (48, 48), "red").save(others / f"{row.image_path.stem}.png")
    options = ["--images", f"sdn={diverse_model}", others, "--reference", reference]
    assert run("comparison", *options, "--rows", 3, "--output", tmp_path / "figure.png") == 0
    assert is_picture(tmp_path / "figure.png")
    [figure] = drawn
    assert figure["columns"] == ["real", "sdn", "others"]
    shown = [rows[3], rows[7], rows[11]]
    assert figure["rows"] == [row.captions[0] for row in shown]
    samples = np.concatenate(list(load_model(diverse_model).draw(figure["rows"])))
    for place, (row, (real, ours, theirs)) in enumerate(zip(shown, figure["images"], strict=True)):
        assert (real == read_real(row.image_path, 32, 32)).all()
        index = rows.index(row)
        assert np.abs(ours.astype(int) - samples[place, index % 2]).max() <= 1
        assert (theirs == [255, 0, 0]).all()

    best = tmp_path / "best.png"
    assert run("comparison", *options, "--rows", 3, "--best_of", 16, "--output", best) == 0
    figure = drawn.pop()
    assert figure["columns"] == ["real", "sdn, best of 2", "others, best of 1"]
    for place, (real, ours, _) in enumerate(figure["images"]):
        chosen = int(np.argmax([fsim(real, sample) for sample in samples[place]]))
        assert np.abs(ours.astype(int) - samples[place, chosen]).max() <= 1
    with pytest.raises(UserError, match="--best_of: found 0, expected 1 to 64"):
        run("comparison", *options, "--best_of", 0, "--output", tmp_path / "none.png")

    wanted = [source_name(rows[5]), rows[4].image_path.stem]
    assert run("comparison", *options, "--sources", *wanted, "--output", tmp_path / "two.png") == 0
    assert drawn[1]["rows"] == [rows[5].captions[0], rows[4].captions[0]]
    with pytest.raises(UserError, match=f"--sources: found {rows[0].image_path.stem}, expected"):
        run(
            *("comparison", *options, "--sources", rows[0].image_path.stem),
            *("--output", tmp_path / "none.png"),
        )
    assert not (tmp_path / "none.png").exists()


def test_diverse_samples(diverse_model, drawn, tmp_path):
    captions = ["a red flower", "a blue flower"]
    options = ["--model", diverse_model, "--text", *captions]
    assert run("diverse", *options, "--output", tmp_path / "figure.png") == 0
    assert is_picture(tmp_path / "figure.png")
    [figure] = drawn
    assert figure["columns"] == ["sample 1", "sample 2"]
    expected = np.concatenate(list(load_model(diverse_model).draw(captions)))
    assert (np.array(figure["images"]) == expected).all()


def test_interpolation_between_two_captions(diverse_model, drawn, tmp_path):
    options = ["--model", diverse_model, "--text", "a red flower", "--to", "a blue flower"]
    assert run("interpolation", *options, "--steps", 5, "--output", tmp_path / "figure.png") == 0
    assert is_picture(tmp_path / "figure.png")
    [figure] = drawn
    assert (figure["rows"], figure["end_captions"]) == (["a red flower"], ["a blue flower"])
    model = load_model(diverse_model)
    a, b = model.embed(["a red flower", "a blue flower"])
    steps = np.stack([a, 0.75 * a + 0.25 * b, (a + b) / 2, 0.25 * a + 0.75 * b, b])
    [expected] = draw_samples(model.generator, steps.astype(np.float32))
    assert np.abs(np.array(figure["images"][0]).astype(int) - expected[:, 0]).max() <= 1
    with pytest.raises(UserError, match="--to: found 2 captions, expected one for each of the 1"):
        run("interpolation", *options, "another", "--output", tmp_path / "none.png")


def test_worst_cases_by_fsim(ray_cluster, reference, rows, diverse_model, drawn, tmp_path):
    options = ["--images", diverse_model, "--reference", reference, "--rows", 4]
    assert run("worst", *options, "--output", tmp_path / "figure.png") == 0
    assert is_picture(tmp_path / "figure.png")
    [figure] = drawn
    captions = [row.captions[0] for row in rows]
    samples = np.concatenate(list(load_model(diverse_model).draw(captions)))
    values = np.array(
        [
            fsim(read_real(row.image_path, 32, 32), samples[place, place % 2])
            for place, row in enumerate(rows)
        ]
    )
    shown = [float(note.removeprefix("FSIM ")) for _, note in figure["notes"]]
    np.testing.assert_allclose(shown, np.sort(values)[:4], atol=1e-3)
    assert figure["rows"][0] == captions[values.argmin()]


def test_retrieval_of_training_images(
    ray_cluster, reference, rows, best_material, drawn, tmp_path, capsys
):
    copies = tmp_path / "copies"  # training photographs: each is its own nearest neighbour
    copies.mkdir()
    training = part_rows(read_reference(reference), "train", None)
    for source, copied in zip(rows, training, strict=False):
        image = Image.fromarray(read_real(copied.image_path, 32, 32))
        image.save(copies / f"{source.image_path.stem}.png")
    options = ["--images", copies, "--reference", reference, "--rows", 3]
    options += ["--teacher", best_material.teacher]
    options += ["--fc_width", 32, "--epochs", 1, "--cache", tmp_path / "cache"]
    assert run("retrieval", *options, "--output", tmp_path / "figure.png") == 0
    assert is_picture(tmp_path / "figure.png")
    [figure] = drawn
    assert [len(pictures) for pictures in figure["images"]] == [6, 6, 6]
    for pictures, notes in zip(figure["images"], figure["notes"], strict=True):
        assert notes[1] == "cosine 1.000"
        assert (pictures[1] == pictures[0]).all()
        assert list(notes[1:]) == sorted(notes[1:], reverse=True)
    assert "fine-tuned VGG" in capsys.readouterr().out
    made = sorted((tmp_path / "cache").glob("retrieval-*"))
    times = [path.stat().st_mtime_ns for path in made]
    assert len(made) == 2
    assert run("retrieval", *options, "--output", tmp_path / "again.png") == 0
    assert [path.stat().st_mtime_ns for path in made] == times
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "figure.png").read_bytes()


def test_a_figure_is_recorded_with_the_run_that_made_the_model(tracked_model, tmp_path):
    model, client, run_id = tracked_model
    options = ["--model", model, "--text", "a red flower"]
    assert run("diverse", *options, "--output", tmp_path / "mine.png") == 0
    [artifact] = client.list_artifacts(run_id, "figures")
    assert artifact.path == "figures/mine.png"


def test_what_is_no_figure(diverse_model, tmp_path):
    options = ["--model", diverse_model, "--text", "a", "--output"]
    with pytest.raises(UserError, match=r"expected a file that ends in \.png"):
        run("diverse", *options, tmp_path / "figure.jpg")
    with pytest.raises(UserError, match="--steps: found 1, expected 2 to 200"):
        run("interpolation", *options, tmp_path / "x.png", "--to", "b", "--steps", 1)
    with pytest.raises(UserError):
        run("portrait", *options, tmp_path / "figure.png")
