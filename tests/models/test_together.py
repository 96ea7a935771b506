import numpy as np
import pytest

from sdn_ray.errors import UserError
from sdn_ray.models.drawing import draw_between
from sdn_ray.models.export import Model
from sdn_ray.models.generator import Generator
from sdn_ray.models.together import Drawing, draw_together
from sdn_ray.text.char_cnn_rnn import CharCnnRnn
from tests.models.test_export import new_gan, new_gawwn, new_generator, new_modulated, new_stackgan

RED, BLUE = "a red flower", "a flower with many thin blue petals"
NOISY = [new_gan, new_modulated, new_stackgan, lambda: new_gawwn("boxes")]


def model_of(generator):
    if not isinstance(generator, Generator):  # a new GAN draws grey, whatever its noise
        for parameter in generator.parameters():
            parameter.data *= 8 if parameter.dim() > 1 else 1
    encoder = CharCnnRnn("short", embedding_dim=5, cnn_dim=4)
    for parameter in encoder.parameters():
        parameter.data *= 4  # captions differ more than those of a new encoder
    return Model(generator.eval(), encoder.eval(), {})


def close(found, expected):
    """Up to the rounding of another batch."""
    assert found.dtype == np.uint8
    assert found.shape == np.shape(expected)
    return np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("make", NOISY)
@pytest.mark.parametrize("batch_size", [3, 128])
def test_each_drawing_has_the_pictures_that_it_has_alone(make, batch_size):
    model = model_of(make())
    drawings = [
        Drawing((RED,), 4, seed=1),
        Drawing((BLUE,), 1, seed=2),
        Drawing((RED, BLUE), 5, seed=3),
        Drawing((RED,), 4, seed=4),
    ]
    found = draw_together(model, drawings, batch_size)
    for one, pictures in zip(drawings, found, strict=True):
        if len(one.captions) == 1:
            (expected,) = model.draw(one.captions, samples=one.pictures, seed=one.seed)
            assert close(pictures, expected[0])
        else:
            first, last = model.embed(one.captions)
            between = draw_between(model.generator, first, last, 5, seed=3)
            assert close(pictures, np.stack(between))
    assert not close(found[0], found[3])  # other noise


def test_without_noise_the_samples_of_a_caption_are_those_of_one_pass():
    model = model_of(new_generator(samples=3))
    drawings = [Drawing((RED,), 2), Drawing((BLUE, RED), 3), Drawing((BLUE,))]
    two, way, one = draw_together(model, drawings)
    ((red,),), ((blue,),) = (model.draw([text], samples=3) for text in (RED, BLUE))
    assert close(two, red[:2])
    assert close(one, blue[:1])
    assert close(way[[0, 2]], np.stack([blue[0], red[0]]))
    assert way.shape == (3, *blue.shape[1:])


def test_captions_are_drawn_without_the_spaces_around_them():
    drawing = Drawing((f"  {RED} ",), 2).checked(new_gan())
    assert drawing == Drawing((RED,), 2)


@pytest.mark.parametrize(
    ("drawing", "reason"),
    [
        (Drawing((" ",)), "captions: found an empty caption"),
        (Drawing((RED,), 4), "samples: found 4, expected 1 to 3"),
        (Drawing((RED,), 0), "samples: found 0"),
        (Drawing((RED,), 1, seed=1), "seed: found 1, but this model takes no noise"),
        (Drawing((RED, BLUE), 1), "steps: found 1, expected 2 to 200"),
        (Drawing((RED, BLUE), 5, seed=-1), "seed: found -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(drawing, reason):
    with pytest.raises(UserError, match=reason):
        drawing.checked(new_generator(samples=3))
