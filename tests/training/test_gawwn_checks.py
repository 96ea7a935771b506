"""From a configuration to GAWWN: networks, stages, and the locations of a data set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdn_ray.config.gans import GawwnStageConfig
from sdn_ray.data.batches import EncodedImages
from sdn_ray.data.rows import CaptionedDataset, CaptionedImage
from sdn_ray.errors import UserError
from sdn_ray.methods.gawwn import IMAGES, KEYPOINTS, GawwnStage
from sdn_ray.methods.sdn import Computing
from sdn_ray.models.gawwn_boxes import BoxImageDiscriminator
from sdn_ray.models.gawwn_keypoints import KeypointImageDiscriminator
from sdn_ray.models.keypoint_generator import KeypointDiscriminator
from sdn_ray.training.build import method_identity, method_stages, method_tags
from sdn_ray.training.gans import gan_networks, new_gan
from sdn_ray.training.gawwn import check_annotations, method_locations, random_locations
from sdn_ray.training.method_checks import judge_shape, new_shape
from tests.training.configs import (
    LOCATIONS,
    PLAN,
    adversarial,
    config_of,
    gan,
    gawwn,
    stackgan,
)


@pytest.mark.parametrize(
    ("locations", "judges", "parts"),
    [
        ("keypoints", [KeypointDiscriminator, KeypointImageDiscriminator], 15),
        ("boxes", [BoxImageDiscriminator], 0),
        ("none", [KeypointImageDiscriminator], 15),
    ],
)
def test_shapes_of_gawwns_networks(locations, judges, parts):
    config = gawwn(locations, 64, gawwn={"generator_width": 8, "discriminator_width": 4})
    with torch.device("meta"):
        generator, found = new_shape(config, None), judge_shape(config, PLAN)
    assert [type(judge) for judge in found] == judges
    assert (generator.image_size, generator.width, generator.z_dim) == (64, 8, 100)
    assert (generator.locations, len(generator.parts)) == (locations, parts)
    assert (generator.keypoints is not None) == (locations == "keypoints")
    if parts:  # of this data set
        generator, found = gan_networks(config, 5, 3, parts=("head", "tail"))
        assert generator.parts == ("head", "tail")
        codes = torch.zeros(2, 5), torch.zeros(2, 100)
        assert generator(*codes).shape == (2, 3, 64, 64)
        images = torch.zeros(2, 3, 64, 64), torch.zeros(2, 2, 3)
        assert found[-1](*images, codes[0]).shape == (2,)
        for network in (generator, *found):
            assert network.whitening(codes[0]).shape == (2, 3)


def test_stages_of_gawwn_are_those_of_its_sections():
    own = {
        "keypoint_stage": GawwnStageConfig(epochs=3, learning_rate=0.1, halving_epochs=2),
        "captions_averaged": 5,
    }
    images = {"image_stage": GawwnStageConfig(epochs=7, learning_rate=0.2, halving_epochs=4)}
    first, second = method_stages(gawwn(gawwn=own | images))
    assert first == GawwnStage(KEYPOINTS, 3, 0.1, 2, captions=1)
    assert second == GawwnStage(IMAGES, 7, 0.2, 4, captions=5)
    for locations in ("boxes", "none"):
        (only,) = method_stages(gawwn(locations, gawwn=images))
        assert only == GawwnStage(IMAGES, 7, 0.2, 4, captions=4, located=locations == "boxes")
    # The authors'.
    first, second = method_stages(gawwn())
    assert (first.epochs, first.learning_rate, first.halving_epochs) == (200, 2e-4, 100)
    assert (second.epochs, second.learning_rate, second.halving_epochs) == (600, 2e-4, 100)


def test_a_run_of_gawwn_is_told_apart_by_all_its_options():
    identity = method_identity(gawwn("boxes"))
    assert identity["method"] == "gawwn"
    assert identity["gawwn"]["locations"] == "boxes"
    assert identity["gawwn"]["image_stage"]["epochs"] == 600
    assert identity != method_identity(gawwn("none"))
    assert method_tags(gawwn()) == {"sdn_ray.method": "gawwn"}


@pytest.fixture
def birds(tmp_path):
    """Two images of 20×10 pixels with two parts each, and the folder of their annotations."""
    rows = []
    for number in (1, 2):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (20, 10)).save(path)
        rows.append(CaptionedImage(path, number, "a bird", ("a bird",), number))
    (tmp_path / "parts").mkdir()
    (tmp_path / "bounding_boxes.txt").write_text("1 5 1 10 4\n2 0 0 20 10\n")
    (tmp_path / "parts" / "parts.txt").write_text("1 left eye\n2 tail\n")
    lines = ("1 1 15 1 1", "1 2 0 0 0", "2 1 5 5 1", "2 2 10 10 1")
    (tmp_path / "parts" / "part_locs.txt").write_text("\n".join(lines))
    return CaptionedDataset("cub", tuple(rows), annotations=tmp_path)


def test_the_locations_of_a_data_set(birds):
    boxes = method_locations(gawwn("boxes"), birds)
    assert boxes.parts == ()
    expected = [[0.25, 0.1, 0.5, 0.4], [0, 0, 1, 1]]
    np.testing.assert_allclose(boxes.values, [expected] * 2, atol=1e-6)
    for locations in ("keypoints", "none"):  # "none": the networks have maps of them
        parts = method_locations(gawwn(locations), birds)
        assert parts.parts == ("left eye", "tail")
        plain = [[[0.75, 0.1, 1], [0, 0, 0]], [[0.25, 0.5, 1], [0.5, 1, 1]]]
        mirrored = [[[0.25, 0.1, 1], [0, 0, 0]], [[0.75, 0.5, 1], [0.5, 1, 1]]]
        np.testing.assert_allclose(parts.values, [plain, mirrored], atol=1e-6)


@pytest.mark.parametrize("locations", LOCATIONS)
def test_a_data_set_must_have_what_the_locations_are_read_from(birds, locations):
    config, own, others = gawwn(locations), ["parts/parts.txt", "parts/part_locs.txt"], []
    others.append("bounding_boxes.txt")
    if locations == "boxes":
        own, others = others, own
    check_annotations(config, birds)
    for file in others:
        (birds.annotations / file).unlink()
    check_annotations(config, birds)  # which does without them
    assert method_locations(config, birds).values.shape[:2] == (2, 2)
    for file in own:
        path = birds.annotations / file
        content = path.read_text()
        path.unlink()
        for look in (check_annotations, method_locations):
            with pytest.raises(UserError, match="found no such file") as error:
                look(config, birds)
            assert str(error.value).startswith(str(path))
        path.write_text(content)
    bare = replace(birds, name="oxford_flowers", annotations=None)
    for look in (check_annotations, method_locations):
        with pytest.raises(UserError, match=r"^dataset.name: found oxford_flowers"):
            look(config, bare)


@pytest.mark.parametrize("config", [config_of(), adversarial(), gan(), stackgan()])
def test_other_methods_read_no_locations(config):
    for annotations in (None, Path("/nowhere")):
        dataset = CaptionedDataset("cub", (), annotations=annotations)
        check_annotations(config, dataset)
        assert method_locations(config, dataset) is None
    assert random_locations(config, 3) is None


def test_locations_of_a_benchmark():
    boxes = random_locations(gawwn("boxes"), 3)
    assert (boxes.shape, boxes.dtype) == ((2, 3, 4), np.float32)
    assert boxes.min() >= 0
    assert (boxes[..., :2] + boxes[..., 2:]).max() <= 1
    for locations in ("keypoints", "none"):
        parts = random_locations(gawwn(locations), 3)
        assert (parts.shape, parts.dtype) == ((2, 3, 15, 3), np.float32)
        assert (parts[..., 2] == 1).all()
        assert 0 <= parts.min() <= parts[..., :2].max() < 1


@pytest.mark.parametrize("locations", LOCATIONS)
def test_new_networks_of_gawwn_know_parts_and_boxes_of_the_training_images(locations):
    small = {"generator_width": 4, "discriminator_width": 4, "text_width": 4, "noise_dim": 3}
    config = gawwn(locations, gawwn=small)
    draws, images, trained = np.random.default_rng(0), 12, np.arange(0, 12, 2)
    values = {"boxes": draws.random((2, images, 4)), "keypoints": draws.random((2, images, 2, 3))}
    values["none"] = values["keypoints"]
    data = EncodedImages(
        images=np.zeros((images, 32, 32, 3), np.uint8),
        embeddings=draws.normal(size=(images, 5)).astype(np.float32),
        caption_rows=np.arange(images)[:, None],
        caption_counts=np.ones(images, int),
        indices=trained,
        classes=np.arange(images),
        locations=values[locations].astype(np.float32),
    )
    parts = () if locations == "boxes" else ("head", "tail")
    method = new_gan(config, data, parts, None, Computing())
    assert method.generator.parts == parts
    assert (method.generator.z_dim, method.generator.embedding_dim) == (3, 5)
    if locations == "boxes":
        kept, own = method.generator.boxes.numpy(), data.locations[0, trained]
        found = (kept[:, None] == own[None]).all(2)
        assert found.any(1).all()
        assert found.any(0).all()
    judges = {name: type(judge) for name, judge in method.discriminators.items()}
    of_images = BoxImageDiscriminator if locations == "boxes" else KeypointImageDiscriminator
    of_keypoints = {KEYPOINTS: KeypointDiscriminator} if locations == "keypoints" else {}
    assert judges == {**of_keypoints, IMAGES: of_images}
    assert list(judges) == [stage.name for stage in method.stages]
