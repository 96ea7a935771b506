import asyncio
import io

import numpy as np
import pytest
import torch
from PIL import Image

from sdn_ray.data.image_sets import read_real
from sdn_ray.data.rows import CaptionedImage
from sdn_ray.models.plan import Plan
from sdn_ray.models.retrieval import RetrievalNetwork, fc7_features
from sdn_ray.scoring.retrieval_index import RetrievalIndex
from sdn_ray.serving.asking import UnavailableError
from sdn_ray.serving.neighbours import Neighbours
from sdn_ray.serving.replicas import png


def new_index(folder, count, size=8):
    torch.manual_seed(0)
    network = RetrievalNetwork(Plan.parse("4,M,6,M"), size, 3, 16).eval()
    random, rows = np.random.default_rng(0), []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8)).save(path)
        rows.append(CaptionedImage(path, 0, "kind", (f"flower {number}", "another")))
    images = np.stack([read_real(row.image_path, size, size) for row in rows])
    return RetrievalIndex(network, fc7_features(network, images), tuple(rows))


def test_a_training_image_is_nearest_to_itself(tmp_path):
    index = new_index(tmp_path, 9)
    image = read_real(index.rows[4].image_path, 8, 8)
    found = asyncio.run(Neighbours(index).of(png(image)))
    assert len(found) == 5
    assert found[0].caption == "flower 4"
    assert found[0].cosine == 1
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(found[0].image))), image)
    cosines = [one.cosine for one in found]
    assert cosines == sorted(cosines, reverse=True)


def test_they_are_shown_at_the_drawn_picture_s_size_and_may_be_few(tmp_path):
    index = new_index(tmp_path, 2)
    drawn = np.full((12, 12, 3), 200, np.uint8)
    found = asyncio.run(Neighbours(index).of(png(drawn)))
    assert [Image.open(io.BytesIO(one.image)).size for one in found] == [(12, 12)] * 2


def test_a_training_image_that_has_gone_is_no_fault_of_whoever_asks(tmp_path):
    index = new_index(tmp_path, 2)
    picture = png(read_real(index.rows[0].image_path, 8, 8))
    for row in index.rows:
        row.image_path.unlink()
    with pytest.raises(UnavailableError, match="the training images cannot be read"):
        asyncio.run(Neighbours(index).of(picture))


def test_only_so_many_wait_for_the_one_that_looks(tmp_path):
    looking = Neighbours(new_index(tmp_path, 2))
    picture = png(np.zeros((8, 8, 3), np.uint8))

    async def ask():
        asked = [looking.of(picture) for _ in range(10)]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(ask())
    assert [isinstance(one, UnavailableError) for one in found] == [False] * 8 + [True] * 2
