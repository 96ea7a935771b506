from pathlib import Path

import numpy as np
import pytest

from sdn_ray.data.prepared import PreparedImages, caption_arrays, store_captions, store_precomputed
from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.errors import UserError

ROWS = (
    ("a.jpg", 4, ("red", "a red flower")),
    ("b.jpg", 2, ("blue",)),
    ("c.jpg", 4, ("red", "blue", "very red")),
)


def prepared(folder, rows=ROWS, key="key"):
    array = np.arange(len(rows) * 12, dtype=np.uint8).reshape(len(rows), 2, 2, 3)
    path = folder / "images.npy"
    np.save(path, array)
    dataset = CaptionedDataset(
        "toy",
        tuple(CaptionedImage(Path("jpg") / n, c, f"class {c}", text) for n, c, text in rows),
    )
    return PreparedImages(key, dataset, path)


class Embed:
    """Embeds a caption as its length and number of words, and counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, captions):
        self.calls.append(captions)
        return np.array([[len(c), c.count(" ") + 1] for c in captions], dtype=np.float32)


def stored(images, cache, embed):
    arrays = caption_arrays(images, cache, "encoder")
    assert not arrays.folder.exists()
    store_captions(images, arrays, embed)
    return arrays


def test_every_distinct_caption_is_embedded_once(tmp_path):
    images, embed = prepared(tmp_path), Embed()
    data = stored(images, tmp_path / "cache", embed).encoded(images, (2, 4))
    assert embed.calls == [["red", "a red flower", "blue", "very red"]]
    assert data.embeddings.dtype == np.float32
    assert len(data.embeddings) == 4
    assert data.caption_counts.tolist() == [2, 1, 3]
    assert data.caption_rows.tolist() == [[0, 1, -1], [2, -1, -1], [0, 2, 3]]
    for row, (_, _, captions) in enumerate(ROWS):
        for place, caption in enumerate(captions):
            found = data.embeddings[data.caption_rows[row, place]]
            assert found.tolist() == [len(caption), caption.count(" ") + 1]


def test_the_images_of_some_classes_in_the_data_sets_order(tmp_path):
    images = prepared(tmp_path)
    captions = stored(images, tmp_path / "cache", Embed())
    for classes, expected in (((4,), [0, 2]), ((2,), [1]), ((4, 2), [0, 1, 2]), ((9,), [])):
        data = captions.encoded(images, classes)
        assert data.indices.tolist() == expected
        assert data.indices.dtype == np.int64
        assert len(data.images) == 3
        np.testing.assert_array_equal(data.images, np.load(tmp_path / "images.npy"))
    assert captions.encoded(images, (4,)).first_captions().tolist() == [[3, 1], [3, 1]]


def test_captions_and_their_encoder_settle_where_embeddings_stand(tmp_path):
    def folder(rows=ROWS, source="encoder"):
        return caption_arrays(prepared(tmp_path, rows), tmp_path, source).folder

    assert folder() == folder()
    assert folder().parent == tmp_path
    changed = (*ROWS[:1], ("b.jpg", 2, ("green",)), *ROWS[2:])
    # The same captions, divided otherwise among the images.
    divided = (("a.jpg", 4, ("red",)), ("b.jpg", 2, ("a red flower", "blue")), ROWS[2])
    others = [folder(source="another encoder"), folder(changed), folder(divided)]
    assert len({folder(), *others}) == 4


def test_of_two_who_embed_at_once_the_first_wins(tmp_path):
    images, arrays = prepared(tmp_path), caption_arrays(prepared(tmp_path), tmp_path / "cache", "e")

    def slow(captions):
        store_captions(images, arrays, Embed())
        return np.zeros((len(captions), 2), dtype=np.float32)

    store_captions(images, arrays, slow)
    assert arrays.encoded(images, (2,)).first_captions().tolist() == [[4, 1]]
    assert list((tmp_path / "cache").iterdir()) == [arrays.folder]


def test_an_encoder_that_fails_leaves_nothing_in_the_cache(tmp_path):
    def fail(captions):
        raise RuntimeError("no encoder")

    with pytest.raises(RuntimeError, match="no encoder"):
        stored(prepared(tmp_path), tmp_path / "cache", fail)
    stored(prepared(tmp_path), tmp_path / "cache", Embed())
    assert len(list((tmp_path / "cache").iterdir())) == 1


def precomputed():
    draws = np.random.default_rng(0)
    return {name: draws.normal(size=(n, 6)) for name, n in (("a", 2), ("b", 1), ("c", 3))}


def test_precomputed_embeddings(tmp_path):
    images, embeddings = prepared(tmp_path), precomputed() | {"elsewhere": np.zeros((1, 6))}
    first = store_precomputed(images, tmp_path / "cache", Path("file.npz"), embeddings)
    data = first.encoded(images, (4,))
    assert data.embeddings.dtype == np.float32
    assert data.caption_counts.tolist() == [2, 1, 3]
    for row, name in enumerate("abc"):
        rows = data.caption_rows[row, : data.caption_counts[row]]
        np.testing.assert_array_equal(data.embeddings[rows], embeddings[name].astype(np.float32))
    again = store_precomputed(images, tmp_path / "cache", Path("moved.npz"), embeddings)
    assert again == first
    other = embeddings | {"b": np.ones((1, 6))}
    assert store_precomputed(images, tmp_path / "cache", Path("file.npz"), other) != first


def test_an_image_without_precomputed_embeddings(tmp_path):
    embeddings = precomputed()
    del embeddings["b"]
    with pytest.raises(UserError, match=r"text\.embeddings: file\.npz has no embeddings of b"):
        store_precomputed(prepared(tmp_path), tmp_path / "cache", Path("file.npz"), embeddings)
    assert not (tmp_path / "cache").exists()


def test_images_of_one_stem_cannot_be_told_apart(tmp_path):
    images = prepared(tmp_path, (*ROWS, ("more/a.jpg", 2, ("a", "b"))))
    with pytest.raises(UserError, match="by the stems of their names, and 2 are called a; expect"):
        store_precomputed(images, tmp_path / "cache", Path("file.npz"), precomputed())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_precomputed_embeddings_that_are_not_one_a_caption(tmp_path, count):
    embeddings = precomputed() | {"a": np.zeros((count, 6))}
    with pytest.raises(UserError, match=r"text\.embeddings: file\.npz .*\ba\b") as caught:
        store_precomputed(prepared(tmp_path), tmp_path / "cache", Path("file.npz"), embeddings)
    assert str(count) in str(caught.value)
