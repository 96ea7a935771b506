import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from sdn_ray.data.image_sets import SetImage
from sdn_ray.data.references import RealImages
from sdn_ray.data.rows import CaptionedImage
from sdn_ray.metrics.fsim import fsim
from sdn_ray.scoring.comparison import write_comparison
from sdn_ray.scoring.image_sets import Entry, ScoredSet, open_set

RANDOM = np.random.default_rng(0)


def image(side=32):
    """A smooth random picture."""
    coarse = Image.fromarray(RANDOM.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    return np.array(coarse.resize((side, side), Image.Resampling.BILINEAR))


@pytest.fixture
def figure(monkeypatch):
    """What the last figure was made of."""
    made = {}

    def record(path, rows, columns, images, **options):
        made.update({"rows": rows, "columns": columns, "images": images} | options)

    monkeypatch.setattr("sdn_ray.scoring.comparison.comparison_rows", record)
    return made


@pytest.fixture
def real(tmp_path):
    """Two real images."""
    rows = []
    for number in range(2):
        path = tmp_path / f"real_{number}.png"
        Image.fromarray(image()).save(path)
        rows.append(CaptionedImage(path, 1, "class", (f"caption {number}", "another")))
    return RealImages.of(rows)


@pytest.fixture
def drawn(tmp_path):
    """Five pictures of the first caption and three of the second, and a set of them."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    pictures = {0: [image() for _ in range(5)], 1: [image() for _ in range(3)]}
    lines = []
    for number, own in pictures.items():
        for sample, picture in enumerate(own):
            file = f"{number}-{sample}.png"
            Image.fromarray(picture).save(folder / file)
            line = {"file": file, "index": number, "sample": sample}
            lines.append(line | {"source": f"real_{number}", "caption": f"caption {number}"})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, reversed(lines))))
    return folder, pictures


def best_of(pictures, row):
    photograph = np.array(Image.open(row.image_path))
    return pictures[int(np.argmax([fsim(photograph, picture) for picture in pictures]))]


def test_of_a_folder_each_caption_shows_the_picture_most_like_the_real_image(figure, real, drawn):
    folder, pictures = drawn
    one = open_set(Entry("other", folder), real, None)
    for most, name in ((16, "best of 3 to 5"), (4, "best of 3 to 4"), (2, "best of 2")):
        write_comparison(Path("x.png"), [one], real, [1, 0], best_of=most)
        assert figure["columns"] == ["real", f"other, {name}"]
        for place, (photograph, shown) in zip((1, 0), figure["images"], strict=True):
            row = real.rows[place]
            assert (photograph == np.array(Image.open(row.image_path))).all()
            assert (shown == best_of(pictures[place][:most], row)).all()
    assert figure["rows"] == ["caption 1", "caption 0"]
    assert "the highest FSIM to the real image" in figure["caption"]


def test_where_nothing_is_chosen_the_pictures_are_those_that_are_scored(figure, real, drawn):
    folder, _ = drawn
    one = open_set(Entry("other", folder), real, None)
    write_comparison(Path("x.png"), [one], real, [0, 1], real_size=20)
    assert figure["columns"] == ["real", "other"]
    scored = {image.source: np.array(Image.open(image.path)) for image in one.images}
    for number, (photograph, shown) in enumerate(figure["images"]):
        assert photograph.shape == (20, 20, 3)
        assert (shown == scored[f"real_{number}"]).all()
    assert figure["caption"] == "One picture of each caption, which nobody has chosen."


@pytest.mark.parametrize(
    ("noise", "samples", "wanted", "found"), [(4, 1, 16, 16), (0, 3, 16, 3), (0, 3, 2, 2)]
)
def test_a_model_draws_as_many_as_it_can(figure, real, monkeypatch, noise, samples, wanted, found):
    pictures = [image() for _ in range(16)]
    model = Mock()
    model.to.return_value = model
    model.generator.noise_dim, model.generator.samples = noise, samples
    monkeypatch.setattr("sdn_ray.scoring.comparison.load_model", lambda folder: model)
    monkeypatch.setattr(
        "sdn_ray.scoring.comparison.draw_rows",
        lambda model, rows: (pictures[row["sample"]] for row in rows),
    )
    folder = Path("model")
    images = tuple(SetImage(folder, n, source=f"real_{n}", caption="") for n in range(2))
    one = ScoredSet("sdn", images, folder, None, folder)
    write_comparison(Path("x.png"), [one], real, [0, 1], best_of=wanted)
    assert figure["columns"] == ["real", f"sdn, best of {found}"]
    for row, (_, shown) in zip(real.rows, figure["images"], strict=True):
        assert (shown == best_of(pictures[:found], row)).all()
