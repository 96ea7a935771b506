"""Which words a caption has."""

import numpy as np
import pytest

from sdn_ray.errors import UserError
from sdn_ray.text.encoders import copied_text_encoder, copy_text_encoder, read_text_encoder
from sdn_ray.text.words import WordEncoder, count_words

CAPTIONS = [f"a red flower with {number} yellow petals" for number in "abcde"]


def test_words_and_pairs_of_neighbours():
    encoder = WordEncoder(["red", "center", "red center", "red flower", "heart shaped"])
    found = encoder.encode(
        ["a red flower, its Center white", "red centers", "", "red, heart-shaped: red center"]
    )
    assert found.dtype == np.float32
    np.testing.assert_array_equal(
        found, [[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 1]]
    )


def test_the_order_of_words_counts():
    encoder = count_words([f"red petals yellow {number}" for number in "abcde"], 9)
    first, second = encoder.encode(["red petals, yellow center", "yellow petals, red center"])
    assert not np.array_equal(first, second)


def test_nothing_frequent_is_refused():
    with pytest.raises(UserError, match="found no word in 5 captions"):
        count_words(["one", "two"], 9)


def test_frequent_words_of_distinct_captions_are_read():
    encoder = count_words([*CAPTIONS, *CAPTIONS, "a red apple"], 100)
    known = {"a", "red", "flower", "with", "yellow", "petals"}
    pairs = {"a red", "red flower", "flower with", "yellow petals"}
    assert set(encoder.vocabulary) == known | pairs  # of "with a" and "a yellow" there is one
    assert count_words(CAPTIONS, 3).embedding_dim == 3
    assert count_words(reversed(CAPTIONS), 3).vocabulary == count_words(CAPTIONS, 3).vocabulary


def test_batches_are_told():
    seen = []
    WordEncoder(["red"]).encode(["red"] * 5, 2, lambda *counts: seen.append(counts))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_it_is_kept_in_a_model_and_read_from_there(tmp_path):
    encoder = count_words(CAPTIONS, 100)
    encoder.save(tmp_path / "text-1.json")
    (tmp_path / "model").mkdir()
    copy_text_encoder(tmp_path / "text-1.json", tmp_path / "model")
    again = read_text_encoder(copied_text_encoder(tmp_path / "model"))
    assert again.vocabulary == encoder.vocabulary
    assert read_text_encoder(tmp_path / "model").vocabulary == encoder.vocabulary


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "sdn_ray.words", "vocabulary": []}'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(UserError, match=r"words\.json"):
        read_text_encoder(tmp_path / "words.json")
