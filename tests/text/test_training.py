"""The joint embedding loss, and training on a problem small enough to be solved in seconds."""

import numpy as np
import pytest
import torch

from sdn_ray.errors import UserError
from sdn_ray.text.scores import CaptionedFeatures, zero_shot_accuracy
from sdn_ray.text.training import (
    SentenceTower,
    TextTraining,
    joint_embedding_loss,
    new_char_tower,
    train_text_encoder,
)

COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "white": (1, 1, 1),
    "black": (0, 0, 0),
}


def toy(seed: int = 0, width: int = 3) -> CaptionedFeatures:
    """Six classes of eight images, told apart by a colour; further feature columns are constant."""
    rng = np.random.default_rng(seed)
    captions, class_ids, features = [], [], []
    for class_id, (name, colour) in enumerate(COLOURS.items()):
        for _ in range(8):
            captions.append([f"a {name} flower", f"petals are {name}", f"it is {name} all over"])
            class_ids.append(class_id)
            features.append([*colour, *[7.0] * (width - 3)])
    features = np.array(features, dtype=np.float32)
    features[:, :3] += rng.normal(0, 0.1, (len(features), 3))
    return CaptionedFeatures(captions, np.array(class_ids), features)


def train(data: CaptionedFeatures, **settings):
    settings = {"variant": "short", "embedding_dim": 3, "epochs": 1, "seed": 3, **settings}
    return train_text_encoder(data.captions, data.class_ids, data.features, **settings)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("images", "steps"), [(81, 3), (80, 2), (3, 1)])
def test_images_that_are_classes_of_their_own_are_seen_once_an_epoch(images, steps, monkeypatch):
    captions = [[f"a flower of {n}"] for n in range(images)]
    features = np.random.default_rng(0).normal(size=(images, 3)).astype(np.float32)
    taken = count_steps(monkeypatch)
    train(CaptionedFeatures(captions, np.arange(images), features), epochs=2)
    assert len(taken) == 2 * steps


def test_an_epoch_has_as_many_steps_as_classes(monkeypatch):
    taken = count_steps(monkeypatch)
    train(toy(), epochs=2)
    assert len(taken) == 2 * 6


def count_steps(monkeypatch):
    taken, step = [], TextTraining._step
    monkeypatch.setattr(TextTraining, "_step", lambda self: taken.append(1) or step(self))
    return taken


def test_loss_equals_double_loops():
    rng = np.random.default_rng(2)
    image, text = rng.normal(size=(2, 5, 4))
    s = image @ text.T
    expected = 0.0
    for i in range(5):
        for j in range(5):
            if j != i:
                expected += max(0, 1 + s[i, j] - s[i, i])  # another caption for image i
                expected += max(0, 1 + s[j, i] - s[i, i])  # another image for caption i
    found = joint_embedding_loss(torch.tensor(image), torch.tensor(text))
    assert found.shape == ()
    assert float(found) == pytest.approx(expected / 25, rel=1e-12)


def test_loss_of_separated_pairs_is_zero_and_of_equal_ones_is_the_margin():
    assert float(joint_embedding_loss(2 * torch.eye(3), torch.eye(3))) == 0
    assert float(joint_embedding_loss(torch.zeros(4, 2), torch.ones(4, 2))) == 2 * 12 / 16


def test_training_learns_and_reports():
    data, held_out = toy(), toy(seed=9)
    reports = []
    encoder = train(data, epochs=8, on_epoch=reports.append, validation=held_out)
    assert [report.epoch for report in reports] == list(range(1, 9))
    assert {report.epochs for report in reports} == {8}
    assert reports[-1].loss < reports[0].loss / 2
    assert reports[-1].validation.zero_shot_accuracy > 0.8  # chance is 1/6
    standardised = (held_out.features - data.features.mean(0)) / data.features.std(0)
    texts = encoder.encode([f"petals are {name}" for name in COLOURS])
    own = zero_shot_accuracy(texts, np.arange(6), standardised, held_out.class_ids)
    assert own > 0.8


def weights(encoder):
    return torch.cat([value.flatten() for value in encoder.state_dict().values()])


@pytest.mark.parametrize("embedding_dim", [3, 5])  # without and with an image projection
def test_same_seed_same_weights(embedding_dim):
    first, again, other = (
        weights(train(toy(), embedding_dim=embedding_dim, seed=seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_observing_training_does_not_change_it():
    plain = weights(train(toy()))
    watched = weights(train(toy(), on_epoch=lambda report: None, validation=toy(9)))
    assert torch.equal(plain, watched)


def test_constant_feature_columns_are_harmless():
    reports = []
    train(toy(width=5), embedding_dim=5, on_epoch=reports.append)
    assert np.isfinite(reports[0].loss)


def test_decay_acts_from_the_second_epoch_on():
    one = weights(train(toy(), epochs=1, decay=1.0))
    frozen = weights(train(toy(), epochs=2, decay=0.0))
    assert torch.equal(one, frozen)
    assert not torch.equal(one, weights(train(toy(), epochs=2, decay=0.98)))


def test_bfloat16_training_learns_too():
    reports = []
    train(toy(), epochs=5, amp=True, on_epoch=reports.append)
    assert reports[-1].loss < reports[0].loss / 2


def test_diverging_training_stops_with_the_epoch():
    with pytest.raises(UserError, match=r"loss became .* in epoch \d+ at learning rate 1e\+30"):
        train(toy(), epochs=3, learning_rate=1e30)


def test_one_class_is_refused():
    data = toy()
    with pytest.raises(UserError, match="found 1 training classes"):
        train_text_encoder(data.captions[:8], data.class_ids[:8], data.features[:8])


def new_training(data, tower=None, embedding_dim=3):
    first = torch.Generator().manual_seed(3)
    return TextTraining(
        data,
        tower or new_char_tower("short", embedding_dim, first),
        embedding_dim=embedding_dim,
        first=first,
        learning_rate=7e-4,
        decay=0.98,
        batch_classes=4,
        seed=3,
        device="cpu",
        amp=True,
    )


def test_a_training_goes_on_from_its_state_bit_for_bit(tmp_path):
    whole = new_training(toy(width=5), embedding_dim=4)
    losses = [whole.run_epoch() for _ in range(4)]
    begun = new_training(toy(width=5), embedding_dim=4)
    begun.run_epoch()
    torch.save(begun.state_dict(), tmp_path / "state.pt")
    rest = new_training(toy(width=5), embedding_dim=4)
    rest.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert rest.epoch == 1
    assert [rest.run_epoch() for _ in range(3)] == losses[1:]
    assert torch.equal(weights(rest.tower.module), weights(whole.tower.module))
    assert torch.equal(weights(rest.image_encoder.project), weights(whole.image_encoder.project))


class FrozenColours:
    """Stands for a pretrained encoder: each colour word has its own place."""

    base_dim = 6

    def __init__(self):
        self.encoded = []

    def base(self, captions):
        self.encoded += captions
        places = [next(i for i, name in enumerate(COLOURS) if name in text) for text in captions]
        return np.eye(6, dtype=np.float32)[places]


def test_of_a_frozen_encoder_a_linear_layer_is_trained():
    data, held_out, frozen = toy(), toy(seed=9), FrozenColours()
    tower = SentenceTower(frozen, frozen.base, 3, torch.Generator().manual_seed(0))
    training = new_training(data, tower)
    before = tower.module.weight.detach().clone()
    for _ in range(150):
        training.run_epoch()
    assert not torch.equal(before, tower.module.weight)
    assert len(frozen.encoded) == 18  # every distinct caption once
    scores = training.scores(held_out)
    assert scores.zero_shot_accuracy > 0.8
    assert scores.ap_at_50 == pytest.approx(1 / 6)  # all 48 images, 8 of each class
    found = tower.encode(["a red flower"])
    expected = tower.module.weight.detach().numpy()[:, 0] + tower.module.bias.detach().numpy()
    np.testing.assert_allclose(found, expected[None], rtol=1e-6)
