import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sdn_ray.pictures import captioned_grid, comparison_rows, loss_curves

CAPTIONS = [
    "a yellow flower with a red center and many thin petals",
    "blue",
    "",
    "φ → 花",
    "x" * 99,
]


def flat(value, size=128):
    """An image of one colour, which no text has."""
    return np.full((size, size, 3), (value, 0, 200), dtype=np.uint8)


def places(path, value):
    """Where the sheet shows `flat(value)`: the corners, and the number of pixels."""
    sheet = np.asarray(Image.open(path).convert("RGB"))
    found = np.argwhere((sheet == (value, 0, 200)).all(2))
    return found.min(0), found.max(0) + 1, len(found)


@pytest.mark.parametrize("headers", [(), ("real", "generated")])
def test_a_grid_shows_every_image(tmp_path, headers):
    pairs = [(flat(10 + 20 * i), flat(20 + 20 * i)) for i in range(5)]
    captioned_grid(tmp_path / "grid.png", CAPTIONS, pairs, headers, columns=2)
    corners = []
    for value in range(10, 110, 10):
        first, last, pixels = places(tmp_path / "grid.png", value)
        assert (last - first).tolist() == [128, 128]
        assert pixels == 128 * 128
        corners.append(first)
    for real, generated in zip(corners[::2], corners[1::2], strict=True):
        assert generated[0] == real[0]
        assert generated[1] > real[1]
    rows = [corner[0] for corner in corners[::2]]  # of cells, two a row
    assert rows[0] == rows[1] < rows[2] == rows[3] < rows[4]
    assert corners[0][1] == corners[4][1] == corners[8][1] < corners[2][1]
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_small_images_are_enlarged_and_large_ones_not(tmp_path):
    captioned_grid(tmp_path / "small.png", ["a"], [[flat(50, 16)]])
    captioned_grid(tmp_path / "large.png", ["a"], [[flat(50, 200)]])
    for name, side in (("small", 128), ("large", 200)):
        assert places(tmp_path / f"{name}.png", 50)[2] == side**2


def letters(path, darker_than=160):
    """The places (top, bottom, left, right) of connected dark ink, of which each o is one."""
    sheet = np.asarray(Image.open(path).convert("RGB"))
    labels, _ = ndimage.label((sheet < darker_than).all(2))
    return [(r.start, r.stop, c.start, c.stop) for r, c in ndimage.find_objects(labels)]


def shows(path, value, size=128):
    """The corner of `flat(value)`, which nothing may cover or cut."""
    first, last, pixels = places(path, value)
    assert (last - first).tolist() == [size, size]
    assert pixels == size**2
    return first.tolist()


def test_comparison_rows_put_each_image_in_its_place(tmp_path):
    path = tmp_path / "rows.png"
    images = [[flat(10, 64), flat(20), flat(30, 100)], [flat(40), flat(50, 16), flat(60)]]
    comparison_rows(path, ["a", "b"], ["real", "other", "sdn"], images)
    corners = [[shows(path, value) for value in row] for row in ((10, 20, 30), (40, 50, 60))]
    for row in corners:
        assert row[0][0] == row[1][0] == row[2][0]
        assert row[0][1] + 128 < row[1][1] < row[1][1] + 128 < row[2][1]
    assert [x for _, x in corners[0]] == [x for _, x in corners[1]]
    assert corners[0][0][0] + 128 < corners[1][0][0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.png"]


def test_the_caption_of_all_stands_beneath(tmp_path):
    plain, path = tmp_path / "plain.png", tmp_path / "rows.png"
    comparison_rows(plain, ["", ""], [], [[flat(10)], [flat(20)]])
    comparison_rows(path, ["", ""], [], [[flat(10)], [flat(20)]], caption="o" * 90)
    above, whole = Image.open(plain), Image.open(path)
    assert whole.width == above.width
    assert whole.crop((0, 0, *above.size)).tobytes() == above.tobytes()
    found = letters(path)
    assert len(found) == 90
    assert all(top >= above.height and right < whole.width - 4 for top, _, _, right in found)


def test_the_largest_image_sets_the_size_of_all(tmp_path):
    path = tmp_path / "rows.png"
    comparison_rows(path, ["a"], [], [[flat(10, 64), flat(20, 200)]])
    shows(path, 10, 200)
    shows(path, 20, 200)


@pytest.mark.parametrize("word", ["oo oooo o", "o " * 7, "o" * 90])
def test_long_captions_make_their_row_grow(tmp_path, word):
    path = tmp_path / "rows.png"
    captions = [" ".join([word] * 60), "ooo o"]
    ends = ["o o", " ".join([word] * 30)]
    images = [[flat(10), flat(20)], [flat(30), flat(40)]]
    comparison_rows(path, captions, [], images, end_captions=ends)
    left, right = shows(path, 10)[1], shows(path, 20)[1] + 128
    # A row is centred: the second reaches as far above its images as below them.
    height = Image.open(path).height
    middle = shows(path, 30)[0] + 64
    boundary = 2 * middle - height
    found = letters(path)
    for caption, end, (low, high) in zip(
        captions, ends, ((0, boundary), (boundary, height)), strict=True
    ):
        for text, (start, stop) in ((caption, (0, left)), (end, (right, right + 400))):
            own = [x for x in found if low < x[0] and x[1] < high and start < x[2] and x[3] < stop]
            assert len(own) == text.count("o")
    assert len(found) == sum(text.count("o") for text in captions + ends)
    assert len({top for top, *_ in found}) > 20  # lines
    width = Image.open(path).width
    assert all(x[0] > 4 and x[1] < height - 4 and x[2] > 4 and x[3] < width - 4 for x in found)
    assert shows(path, 10)[0] + 128 < boundary < shows(path, 30)[0]


def test_names_and_notes_stand_at_their_images(tmp_path):
    path = tmp_path / "rows.png"
    images = [[flat(10), flat(20)], [flat(30), flat(40)]]
    notes = [["o " * 40, "oo"], ["", "ooo"]]
    comparison_rows(path, ["", ""], ["o o " * 12, "o"], images, notes=notes)
    corners = {value: shows(path, value) for value in (10, 20, 30, 40)}
    assert corners[10][1] == 8  # without captions there is no room for them

    def count(value, low, high):
        left = corners[value][1]
        return sum(low < x[0] and x[1] < high and left <= x[2] < left + 128 for x in found)

    found = letters(path, darker_than=210)  # they are gray
    first, second, height = corners[10][0], corners[30][0], Image.open(path).height
    assert [count(10, 0, first), count(20, 0, first)] == [24, 1]
    assert [count(10, first + 128, second), count(20, first + 128, second)] == [40, 2]
    assert [count(30, second + 128, height), count(40, second + 128, height)] == [0, 3]
    assert sum(bottom - top < 128 for top, bottom, *_ in found) == 24 + 1 + 40 + 2 + 3


def test_captions_in_any_script(tmp_path):
    captions = [*CAPTIONS, "שלום 🌸 e\u0301\u0301 \ud800 \x00 a\u202eb", "花" * 80, "\n\t \u2028"]
    images = [[flat(10 * i)] for i in range(len(captions))]
    comparison_rows(tmp_path / "a.png", captions, captions[:1], images, end_captions=captions[::-1])
    for i in range(len(captions)):
        shows(tmp_path / "a.png", 10 * i)


def test_loss_curves(tmp_path):
    epochs = [
        {"loss": 3.0, "validation/ssim": 0.1},
        {"loss": 2.0},
        {"loss": 9.0, "validation/ssim": 0.2, "validation/score": 2.0, "validation/score_std": 0.1},
    ]
    loss_curves(tmp_path / "one.png", epochs[:1], ["stage_one"])
    loss_curves(tmp_path / "two.png", epochs, ["stage_one", "stage_one", "stage_two"])
    sizes = [Image.open(tmp_path / name).size for name in ("one.png", "two.png")]
    # A panel for the loss and one a score, side by side; the deviation of a score has none.
    assert sizes == [(round(3.2 * panels * 110), round(2.6 * 110)) for panels in (2, 3)]


def test_more_loss_curves_than_fit_side_by_side_take_a_second_row(tmp_path):
    epochs = [{"loss": 1.0} | {f"validation/{name}": 0.5 for name in "abcd"}]
    loss_curves(tmp_path / "curves.png", epochs, ["sdn"])
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (round(3.2 * 4 * 110), round(2.6 * 2 * 110))


def test_attributes_share_a_panel_so_that_one_row_is_enough(tmp_path):
    scores = ("ssim", "perceptual_distance", "petal_color", "center_color", "petal_count")
    epochs = [{"loss": 1.0} | {f"validation/{name}": 0.5 for name in scores}]
    loss_curves(tmp_path / "curves.png", epochs, ["sdn"], scores[2:])
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (round(3.2 * 4 * 110), round(2.6 * 110))
