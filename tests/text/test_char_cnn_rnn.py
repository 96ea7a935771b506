"""The encoder against a plain NumPy transcription of the published network."""

import json
import struct
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdn_ray.errors import UserError
from sdn_ray.text.char_cnn_rnn import ALPHABET, CharCnnRnn, characters, load_text_encoder

CAPTIONS = [
    "a yellow flower with a red center",
    'This flower\'s petals are PINK - and (very) thin; it has 5 of them, 100% "open".',
    "x" * 250,
    "",
    "日本 é flower",
    "petals " * 15,
]


def one_hot(caption: str) -> np.ndarray:
    """``(201, 70)``: the rightmost place of a character, found by searching from the right."""
    columns = np.zeros((201, 70))
    for position, character in enumerate(caption.lower()[:201]):
        place = ALPHABET.rfind(character)
        if place >= 0:
            columns[position, place] = 1
    return columns


def convolve(x, weight, bias):
    steps = len(x) - 3
    out = np.zeros((steps, len(weight)))
    for step in range(steps):
        out[step] = np.einsum("kc,ock->o", x[step : step + 4], weight) + bias
    return np.maximum(out, 0)


def max_pool(x, size, stride):
    steps = (len(x) - size) // stride + 1
    return np.array([x[s * stride : s * stride + size].max(axis=0) for s in range(steps)])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(caption: str, variant: str, p: dict[str, np.ndarray]) -> tuple[np.ndarray, int]:
    """Embedding of one caption, and the number of recurrent steps it took."""
    x = convolve(one_hot(caption), p["conv1.weight"], p["conv1.bias"])
    x = max_pool(x, 3, 3)
    x = convolve(x, p["conv2.weight"], p["conv2.bias"])
    x = max_pool(x, 3, 3)
    x = convolve(x, p["conv3.weight"], p["conv3.bias"])
    states = []
    if variant == "short":
        x = max_pool(x, 3, 2)
        for step in x:
            before = p["recurrence.inputs.weight"] @ step + p["recurrence.inputs.bias"]
            if states:
                before += p["recurrence.state.weight"] @ states[-1] + p["recurrence.state.bias"]
            states.append(np.maximum(before, 0))
    else:
        w_z, w_r, w = np.split(p["recurrence.inputs.weight"], 3)
        b_z, b_r, b = np.split(p["recurrence.inputs.bias"], 3)
        u_z, u_r = np.split(p["recurrence.gates.weight"], 2)
        d_z, d_r = np.split(p["recurrence.gates.bias"], 2)
        u, d = p["recurrence.candidate.weight"], p["recurrence.candidate.bias"]
        for step in x:
            if not states:
                states.append(np.tanh(w @ step + b))
                continue
            h = states[-1]
            z = sigmoid(w_z @ step + b_z + u_z @ h + d_z)
            r = sigmoid(w_r @ step + b_r + u_r @ h + d_r)
            c = np.tanh(w @ step + b + u @ (r * h) + d)
            states.append(z * c + (1 - z) * h)
    mean = np.mean(states, axis=0)
    return p["projection.weight"] @ mean + p["projection.bias"], len(states)


def random_encoder(variant: str, embedding_dim: int = 1024) -> CharCnnRnn:
    encoder = CharCnnRnn(variant, embedding_dim)
    encoder.reset_parameters(torch.Generator().manual_seed(11))
    return encoder


def parameters_of(encoder: CharCnnRnn) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in encoder.state_dict().items()}


def test_alphabet_has_70_characters_with_the_hyphen_twice():
    assert len(ALPHABET) == 70
    assert len(set(ALPHABET)) == 69
    assert (ALPHABET[36], ALPHABET[59], ALPHABET[69]) == ("-", "-", " ")


def test_characters_marks_places_from_one_and_the_last_hyphen():
    indices = characters(["aZ0 -`é!", ""])
    assert indices.shape == (2, 201)
    assert indices.dtype == torch.uint8
    assert indices[0, :9].tolist() == [1, 26, 27, 70, 60, 58, 0, 41, 0]
    assert not indices[0, 8:].any()
    assert not indices[1].any()


def test_characters_cuts_at_201():
    indices = characters(["a" * 200 + "bcd"])
    assert indices[0, 199:].tolist() == [1, 2]


@pytest.mark.parametrize(("variant", "steps"), [("long", 18), ("short", 8)])
def test_both_variants_equal_the_transcription(variant, steps):
    encoder = random_encoder(variant)
    parameters = parameters_of(encoder)
    embeddings = encoder(characters(CAPTIONS)).detach().numpy()
    assert embeddings.shape == (len(CAPTIONS), 1024)
    for caption, embedding in zip(CAPTIONS, embeddings, strict=True):
        expected, taken = reference(caption, variant, parameters)
        assert taken == encoder.steps == steps
        np.testing.assert_allclose(embedding, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["long", "short"])
@pytest.mark.parametrize("length", [0, 9, 10, 154])
def test_shortened_convolutions_change_nothing(variant, length):
    # Alone, a caption has its convolutions cut to its length; beside a full one it has not.
    encoder = random_encoder(variant, 64)
    caption = ("petals of white-yellow " * 9)[:length]
    alone = encoder(characters([caption]))[0]
    beside = encoder(characters([caption, "y" * 201]))[0]
    torch.testing.assert_close(alone, beside, atol=1e-6, rtol=1e-5)


def test_gradients_of_the_first_convolution_equal_those_of_one_hot_columns():
    encoder = random_encoder("short", 32)
    (encoder(characters(CAPTIONS[:3])) ** 2).sum().backward()
    found = encoder.conv1.weight.grad.clone()
    encoder.zero_grad()
    columns = torch.tensor(np.stack([one_hot(caption) for caption in CAPTIONS[:3]]))
    dense = torch.nn.functional.conv1d(
        columns.float().transpose(1, 2), encoder.conv1.weight, encoder.conv1.bias
    )
    encoder._first_convolution = lambda indices: dense.transpose(1, 2)[:, : indices.shape[1] - 3]
    (encoder(characters(CAPTIONS[:3])) ** 2).sum().backward()
    assert found.abs().max() > 1e-4
    torch.testing.assert_close(found, encoder.conv1.weight.grad, atol=1e-6, rtol=1e-4)


def test_parameters_start_in_the_published_range():
    encoder = CharCnnRnn("short", 32)
    encoder.reset_parameters(torch.Generator().manual_seed(5))
    first = parameters_of(encoder)
    for name, value in first.items():
        assert np.abs(value).max() <= 0.08, name
        if value.size > 1000:
            assert abs(value.std() - 0.08 / np.sqrt(3)) < 0.002, name
    encoder.reset_parameters(torch.Generator().manual_seed(5))
    assert all((value == first[name]).all() for name, value in parameters_of(encoder).items())
    encoder.reset_parameters(torch.Generator().manual_seed(6))
    assert (parameters_of(encoder)["conv2.weight"] != first["conv2.weight"]).any()


def test_encode_keeps_order_and_encodes_each_caption_once():
    encoder = random_encoder("short", 32)
    captions = ["white petals", "a", "white petals", "red petals with a long yellow center", "a"]
    calls = []
    embeddings = encoder.encode(captions, batch_size=2, on_batch=lambda *call: calls.append(call))
    assert calls == [(2, 3), (3, 3)]
    assert embeddings.dtype == np.float32
    assert (embeddings[0] == embeddings[2]).all()
    assert (embeddings[1] == embeddings[4]).all()
    for caption, embedding in zip(captions, embeddings, strict=True):
        expected, _ = reference(caption, "short", parameters_of(encoder))
        np.testing.assert_allclose(embedding, expected, atol=1e-5)
    assert encoder.encode([]).shape == (0, 32)


@pytest.mark.parametrize("variant", ["long", "short"])
def test_save_and_load(tmp_path, variant):
    encoder = random_encoder(variant, 48)
    path = tmp_path / "encoder.safetensors"
    encoder.save(path)
    loaded = load_text_encoder(path)
    assert (loaded.variant, loaded.embedding_dim) == (variant, 48)
    assert (loaded.encode(CAPTIONS) == encoder.encode(CAPTIONS)).all()
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.safetensors"]


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "encoder.safetensors"
    random_encoder("short", 8).save(path)
    whole = path.read_bytes()
    for size in (0, 4, 500, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"encoder\.safetensors: cannot be read"):
            load_text_encoder(path)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_text_encoder(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_text_encoder(tmp_path)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(2)}, foreign)
    with pytest.raises(UserError, match="metadata"):
        load_text_encoder(foreign)


def test_wrong_shapes_are_refused_by_name(tmp_path):
    path = tmp_path / "encoder.safetensors"
    random_encoder("short", 8).save(path)
    header_size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    metadata = json.loads(path.read_bytes()[8 : 8 + header_size])["__metadata__"]
    tensors = load_file(path)
    save_file({**tensors, "conv3.bias": torch.zeros(7)}, path, metadata)
    with pytest.raises(UserError, match=r"'conv3\.bias' has shape \(7,\), expected \(256,\)"):
        load_text_encoder(path)
    del tensors["conv3.bias"]
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match=r"'conv3\.bias' has shape missing, expected \(256,\)"):
        load_text_encoder(path)
    [(name, settings)] = metadata.items()
    save_file(tensors, path, {name: settings.replace("short", "medium")})
    with pytest.raises(UserError, match="medium"):
        load_text_encoder(path)


def test_long_captions_are_cut_with_one_warning_that_counts_them():
    encoder = random_encoder("short", 8)
    long = "a rose " * 40
    with pytest.warns(UserWarning, match="2 of 3 captions are longer than 201 characters") as found:
        embeddings = encoder.encode([long, "a rose", long + "!"])
    assert len(found) == 1
    np.testing.assert_array_equal(embeddings[0], embeddings[2])


@pytest.mark.parametrize(
    "caption", ["", "花が咲く", "🌼" * 300, "\x00\ud800", "İstanbul ß ﬁ", "\n\t "]
)
def test_any_unicode_is_a_caption(caption):
    encoder = random_encoder("short", 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(encoder.encode([caption])).all()


def test_equal_encoders_are_equal_files(tmp_path):
    """Caches know an encoder by its bytes, and another process must write the same."""
    written = []
    for number in range(12):
        random_encoder("short", 8).save(tmp_path / "encoder.safetensors")
        written.append((tmp_path / "encoder.safetensors").read_bytes())
        assert written[number] == written[0]
