"""Locations that are given to GAWWN: of files, of real images, and what a request then says."""

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
import torch
from jsonargparse import Namespace

from sdn_ray.data.synthetic.flowers import PARTS, write_synthetic_flowers
from sdn_ray.errors import UserError
from sdn_ray.files import fingerprint
from sdn_ray.models.drawing import draw_samples
from sdn_ray.models.export import Model
from sdn_ray.models.gan_int_cls import GanIntClsGenerator
from sdn_ray.models.gawwn import GawwnGenerator
from sdn_ray.scoring.actors import draw_rows
from sdn_ray.scoring.captions import Request, reference_rows, row_requests
from sdn_ray.scoring.locations import given_option, with_given_locations

NAMES = ("head", "left wing", "tail")
REQUESTS = [Request("a red bird", 3, "red/1.png"), Request("a blue bird")]
BOX = "left, top, width and height in fractions of the image, such as 0.2 0.1 0.5 0.6"
POINTS = "parts with their x and y in fractions of the image, such as beak 0.2 0.3, tail 0.8 0.6"


def options(boxes=None, keypoints=None, reference=None):
    return Namespace(boxes=boxes, keypoints=keypoints, reference=reference)


def gawwn(locations, parts=NAMES, encoder=None):
    parts = () if locations == "boxes" else parts
    generator = GawwnGenerator(5, 32, 4, 3, parts=parts, locations=locations)
    generator.reset_parameters(0)
    return Model(generator.eval(), encoder, {})


def located(path, option, text, requests=REQUESTS):
    path.write_text(text, encoding="utf-8")
    given = options(**{option: str(path)})
    return with_given_locations(requests, given, gawwn(option), None)


def refusal(path, option, text, requests=REQUESTS):
    """The one sentence that is said."""
    with pytest.raises(UserError) as error:
        located(path, option, text, requests)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"--{option}: ")
    return message


def test_which_option_is_given():
    assert given_option(options()) is None
    assert given_option(options(reference="flowers")) is None
    assert given_option(options(boxes="boxes.txt")) == "boxes"
    assert given_option(options(keypoints="parts.txt")) == "keypoints"
    assert given_option(options(boxes="reference", reference="flowers")) == "boxes"
    # A file may go with the captions of a data set.
    assert given_option(options(keypoints="parts.txt", reference="flowers")) == "keypoints"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            options(boxes="a", keypoints="b"),
            "expected one of --boxes and --keypoints; found both",
        ),
        (
            options(boxes="reference", keypoints="reference", reference="flowers"),
            "expected one of --boxes and --keypoints; found both",
        ),
        (
            options(boxes="reference"),
            "--boxes: found reference without --reference, expected a file, or a data set",
        ),
        (
            options(keypoints="reference"),
            "--keypoints: found reference without --reference, expected a file, or a data set",
        ),
    ],
)
def test_options_that_do_not_go_together(given, words):
    with pytest.raises(UserError) as error:
        given_option(given)
    assert str(error.value) == words
    with pytest.raises(UserError):
        with_given_locations(REQUESTS, given, gawwn("boxes"), None)


@pytest.mark.parametrize("locations", ["keypoints", "boxes", "none"])
def test_without_an_option_the_requests_stay(locations):
    assert with_given_locations(REQUESTS, options(), gawwn(locations), None) == REQUESTS


def test_boxes_of_a_file(tmp_path):
    path = tmp_path / "boxes.txt"
    found = located(path, "boxes", "0.25 0.125 0.5 0.75\n 0\t0  1 1 \r\n")
    assert [request.location for request in found] == [
        ((0.25, 0.125, 0.5, 0.75),),
        ((0.0, 0.0, 1.0, 1.0),),
    ]
    assert [replace(request, location=None) for request in found] == REQUESTS
    (one,) = located(path, "boxes", "0.3333333 0 0.6666668 1", REQUESTS[:1])  # but for rounding
    assert one.location == ((0.3333333, 0.0, 0.6666668, 1.0),)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "0.2 0.1 0.5",
        "0.2 0.1 0.5 0.6 0.7",
        "0.2, 0.1, 0.5, 0.6",
        "head 0.2 0.1 0.5",
        "0.2 0.1 0.9 0.6",  # beyond the right edge
        "0.2 0.5 0.5 0.6",  # and the lower one
        "0.2 0.1 0.80001 0.6",
        "-0.1 0.1 0.5 0.6",
        "0.2 -0.1 0.5 0.6",
        "0.2 0.1 0 0.6",
        "0.2 0.1 0.5 0.0",
        "0.2 0.1 -0.5 0.6",
        "0.2 nan 0.5 0.6",
        "0.2 0.1 inf 0.6",
        "12 10 40 40",  # pixels
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_lines_that_are_no_boxes(tmp_path, line, number):
    path, lines = tmp_path / "boxes.txt", ["0.2 0.1 0.5 0.6"] * 2
    lines[number - 1] = line
    message = refusal(path, "boxes", "\n".join(lines) + "\n")
    assert message == f"--boxes: {path}, line {number}: found {line}, expected {BOX}"


def test_parts_of_a_file(tmp_path):
    text = "tail 0.25 0.5,left wing  0 1\n head 0.75 0.125 , tail 1 0\r\n\n"
    requests = [*REQUESTS, Request("a bird of which nothing is known")]
    found = located(tmp_path / "parts.txt", "keypoints", text, requests)
    hidden = (0.0, 0.0, 0.0)
    assert [request.location for request in found] == [
        (hidden, (0.0, 1.0, 1.0), (0.25, 0.5, 1.0)),
        ((0.75, 0.125, 1.0), hidden, (1.0, 0.0, 1.0)),
        (hidden, hidden, hidden),
    ]
    assert [replace(request, location=None) for request in found] == requests


@pytest.mark.parametrize(
    "line",
    [
        "tail",
        "tail 0.2",
        "0.2 0.3",
        "0.2 0.3, tail 0.2 0.3",
        "tail 0.2 middle",
        "tail 0.2 1.3",
        "tail -0.2 0.3",
        "tail nan 0.3",
        "tail 0.2 0.3,",
        "tail 0.2 0.3,, head 0.2 0.3",
        ",",
    ],
)
def test_lines_that_are_no_parts(tmp_path, line):
    path = tmp_path / "parts.txt"
    message = refusal(path, "keypoints", f"head 0.5 0.5\n{line}\n")
    assert message == f"--keypoints: {path}, line 2: found {line}, expected {POINTS}"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("beak 0.2 0.3", "the part beak"),
        ("head 0.1 0.2, wing 0.2 0.3", "the part wing"),
        ("Head 0.1 0.2", "the part Head"),
        ("tail 0.2 0.3 head 0.4 0.5", "the part tail 0.2 0.3 head"),
        ("tail 0.2 0.3, head 0 0, tail 0.2 0.3", "tail twice"),
        ("head 0 0, head 0.5 0.5", "head twice"),
    ],
)
def test_parts_that_the_model_does_not_have_and_parts_twice(tmp_path, line, found):
    message = refusal(tmp_path / "parts.txt", "keypoints", f"head 0.5 0.5\n{line}\n")
    assert f"line 2: found {found}, expected some of head, left wing, tail" in message


@pytest.mark.parametrize(
    ("option", "line"), [("boxes", "0.2 0.1 0.5 0.6"), ("keypoints", "head 0.5 0.5")]
)
def test_files_as_a_whole(tmp_path, option, line):
    path = tmp_path / "places.txt"
    for lines in (1, 3):
        message = refusal(path, option, "\n".join([line] * lines))
        assert message == (
            f"--{option}: {path} has lines: {lines}, captions: 2; expected a line for each caption"
        )
    assert "lines: 1, captions: 2" in refusal(path, option, "")
    assert "lines: 3, captions: 2" in refusal(path, option, f"{line}\n{line}\n\n")
    path.write_bytes(b"\xff\n\xff\n")
    for file, words in ((path, "cannot be read"), (tmp_path / "nowhere.txt", "not found")):
        with pytest.raises(UserError, match=words) as error:
            with_given_locations(REQUESTS, options(**{option: str(file)}), gawwn(option), None)
        assert str(error.value).startswith(f"--{option}: {file}")


@pytest.mark.parametrize(
    ("model", "option", "whose"),
    [
        (gawwn("keypoints"), "boxes", "gawwn of keypoints"),
        (gawwn("none"), "boxes", "gawwn of none"),
        (gawwn("boxes"), "keypoints", "gawwn of boxes"),
        (gawwn("none"), "keypoints", "gawwn of none"),
        (Model(GanIntClsGenerator(5, 16, 4, 4, 3), None, {}), "boxes", "gan_int_cls"),
        (Model(GanIntClsGenerator(5, 16, 4, 4, 3), None, {}), "keypoints", "gan_int_cls"),
    ],
)
@pytest.mark.parametrize("source", ["/nowhere/places.txt", "reference"])
def test_models_that_do_not_draw_by_such_locations(model, option, whose, source):
    given = options(**{option: source}, reference="flowers")
    with pytest.raises(UserError) as error:
        with_given_locations(REQUESTS, given, model, None)
    assert str(error.value) == (
        f"--{option}: found it with a model of the method {whose}, expected a gawwn model of "
        f"gawwn.locations {option}"
    )


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn") / "flowers"
    write_synthetic_flowers(root, images_per_species=1, image_size=32)
    return root


@pytest.fixture(scope="module")
def of_flowers(flowers):
    """The data set, and requests of its test images' first two captions, the last one first."""
    dataset, rows = reference_rows(str(flowers), "test", {})
    return dataset, row_requests(rows, 2)[::-1]


def numbers_of(file):
    return [[float(word) for word in line.split()] for line in file.read_text().splitlines()]


def image_number(request):
    """By which the files of annotations know its image."""
    return int(request.source.split("_")[-1].removesuffix(".png"))


def test_boxes_of_the_reference(flowers, of_flowers):
    dataset, requests = of_flowers
    given = options(boxes="reference", reference=str(flowers))
    found = with_given_locations(requests, given, gawwn("boxes"), dataset)
    boxes = {int(number): box for number, *box in numbers_of(flowers / "bounding_boxes.txt")}
    assert len(found) == 2 * 40
    for request, own in zip(found, requests, strict=True):
        assert replace(request, location=None) == own
        expected = np.array(boxes[image_number(own)]) / 32
        np.testing.assert_allclose(request.location, [expected], atol=1e-6)
    assert len({request.location for request in found}) > 20
    assert json.loads(json.dumps(found[0].record))["location"] == [list(found[0].location[0])]


def test_parts_of_the_reference(flowers, of_flowers):
    dataset, requests = of_flowers
    given = options(keypoints="reference", reference=str(flowers))
    found = with_given_locations(requests, given, gawwn("keypoints", PARTS), dataset)
    parts = {}
    for number, _, x, y, seen in numbers_of(flowers / "parts" / "part_locs.txt"):
        parts.setdefault(int(number), []).append([x / 32, y / 32, 1] if seen else [0, 0, 0])
    for request, own in zip(found, requests, strict=True):
        assert replace(request, location=None) == own
        np.testing.assert_allclose(request.location, parts[image_number(own)], atol=1e-6)


def test_parts_of_another_data_set(flowers, of_flowers):
    dataset, requests = of_flowers
    given = options(keypoints="reference", reference=str(flowers))
    for parts in (NAMES, PARTS[::-1]):
        with pytest.raises(UserError) as error:
            with_given_locations(requests, given, gawwn("keypoints", parts), dataset)
        assert str(error.value) == (
            f"--keypoints: the images of --reference have the parts {', '.join(PARTS)}, expected "
            f"the model's, {', '.join(parts)}"
        )


@pytest.mark.parametrize("option", ["boxes", "keypoints"])
def test_a_reference_without_annotations(of_flowers, option):
    dataset, requests = of_flowers
    bare = replace(dataset, name="oxford_flowers", annotations=None)
    given = options(**{option: "reference"}, reference="flowers")
    with pytest.raises(
        UserError, match=f"--{option}: found reference, but oxford_flowers has neither"
    ):
        with_given_locations(requests, given, gawwn(option, PARTS), bare)


@dataclass(frozen=True)
class EarlierRequest:
    """As earlier versions had it."""

    caption: str
    class_id: int | None = None
    source: str | None = None


@pytest.mark.parametrize("values", [("a",), ("a", 3), ("a", 3, "red/1.png")])
def test_a_request_without_a_location_is_noted_as_in_earlier_versions(values):
    own, earlier = Request(*values).record, asdict(EarlierRequest(*values))
    assert own == earlier
    assert list(own) == list(earlier)
    # By which an interrupted run of an earlier version knows that it is asked for the same.
    assert fingerprint([own]) == fingerprint([earlier])
    place = ((0.0, 0.0, 1.0, 1.0),)
    assert Request(*values, location=place).record == (
        asdict(EarlierRequest(*values, *[None] * (3 - len(values)))) | {"location": place}
    )


class OneCaption:
    """A text encoder to which all captions are one."""

    def encode(self, captions):
        return np.tile(np.linspace(-1, 1, 5, dtype=np.float32), (len(captions), 1))


@pytest.mark.parametrize("option", ["boxes", "keypoints"])
def test_rows_are_drawn_at_the_places_of_their_captions(option):
    model = gawwn(option, encoder=OneCaption())
    with torch.no_grad():
        model.generator.images.image[-2].weight *= 100  # the authors' first pictures are grey
    places = [((0.0, 0.0, 0.5, 0.5),), ((0.5, 0.5, 0.5, 0.5),)]
    if option == "keypoints":
        places = [((x, x, 1.0), (0.0, 0.0, 0.0), (1 - x, 0.5, 1.0)) for x in (0.125, 0.875)]
    rows = [
        {"index": index, "caption": "a bird", "sample": sample, "location": places[index - 7]}
        for index in (7, 8)
        for sample in (0, 1)
    ]
    found = np.stack(list(draw_rows(model, rows, seed=3)))
    expected = draw_samples(
        model.generator,
        model.embed(["a bird"] * 2),
        samples=2,
        seed=3,
        indices=np.array([7, 8]),
        locations=np.array(places, np.float32),
    )
    np.testing.assert_array_equal(found, np.concatenate(list(expected)).reshape(found.shape))
    for row in rows:
        del row["location"]
    assert (np.stack(list(draw_rows(model, rows, seed=3))) != found).any()


def test_a_bad_line_is_shown_without_its_end_and_cut_short(tmp_path):
    path = tmp_path / "boxes.txt"
    message = refusal(path, "boxes", "0.2 0.1 0.5\r\n0 0 1 1\r\n")
    assert "line 1: found 0.2 0.1 0.5, expected" in message
    assert len(refusal(path, "boxes", "9" * 100_000 + "\n0 0 1 1\n")) < 600
    assert len(refusal(path, "keypoints", f"{'x' * 100_000} 0.1 0.1\n\n")) < 600
