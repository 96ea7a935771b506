"""From a configuration to GAWWN: its stages, its networks, and where things are on images."""

from typing import Any

import numpy as np
import torch

from sdn_ray.config import ExperimentConfig, GawwnConfig
from sdn_ray.data.batches import EncodedImages
from sdn_ray.data.readers.annotations import (
    Locations,
    read_boxes,
    read_parts,
    require_annotations,
)
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.errors import UserError
from sdn_ray.methods.gawwn import IMAGES, KEYPOINTS, GawwnStage
from sdn_ray.models.gawwn import BOXES, NONE, GawwnGenerator
from sdn_ray.models.gawwn import KEYPOINTS as GENERATED
from sdn_ray.models.gawwn_boxes import BoxImageDiscriminator
from sdn_ray.models.gawwn_keypoints import KeypointImageDiscriminator
from sdn_ray.models.gawwn_plan import CELLS
from sdn_ray.models.image_generators import GAWWN
from sdn_ray.models.keypoint_generator import KeypointDiscriminator

_WITHOUT_ANNOTATIONS = ("oxford_flowers", "folder")  # data sets that have neither boxes nor parts
# For the shapes of networks before a data set is read: CUB's number of parts.
_SOME_PARTS = tuple(f"part {number}" for number in range(1, 16))
_KEYPOINTS_ALONE = ("keypoint_stage", "given_share")  # options that no other locations have

GawwnDiscriminator = KeypointDiscriminator | KeypointImageDiscriminator | BoxImageDiscriminator


def gawwn_stages(config: ExperimentConfig) -> tuple[GawwnStage, ...]:
    """The stages of a configuration."""
    c = config.gawwn
    images = GawwnStage(
        IMAGES,
        c.image_stage.epochs,
        c.image_stage.learning_rate,
        c.image_stage.halving_epochs,
        captions=c.captions_averaged,
        located=c.locations != NONE,
    )
    if c.locations != GENERATED:
        return (images,)
    keypoints = GawwnStage(
        KEYPOINTS,
        c.keypoint_stage.epochs,
        c.keypoint_stage.learning_rate,
        c.keypoint_stage.halving_epochs,
        captions=1,
    )
    return keypoints, images


def gawwn_networks(
    config: ExperimentConfig,
    embedding_dim: int,
    whitened_dim: int | None,
    parts: tuple[str, ...],
) -> tuple[GawwnGenerator, list[GawwnDiscriminator]]:
    """Generator and discriminators, whose weights are still to be drawn; of any parts if none."""
    c, size, parts = config.gawwn, config.dataset.image_size, parts or _SOME_PARTS
    generator = GawwnGenerator(
        embedding_dim,
        size,
        c.generator_width,
        c.noise_dim,
        whitened_dim,
        () if c.locations == BOXES else parts,
        c.locations,
    )
    shape = embedding_dim, size, c.discriminator_width, c.text_width, whitened_dim
    if c.locations == BOXES:
        return generator, [BoxImageDiscriminator(*shape)]
    judges: list[GawwnDiscriminator] = [KeypointImageDiscriminator(*shape, len(parts))]
    if c.locations == GENERATED:
        width = c.discriminator_width
        judges.insert(0, KeypointDiscriminator(embedding_dim, len(parts), width, whitened_dim))
    return generator, judges


def keep_training_boxes(generator: GawwnGenerator, data: EncodedImages) -> None:
    """Give a generator that draws in boxes those of the training images."""
    if generator.locations == BOXES:
        assert data.locations is not None
        generator.keep_boxes(torch.from_numpy(data.locations[0, data.indices]))


def check_gawwn(config: ExperimentConfig) -> None:
    """Refuse what this method does not have.

    Raises:
        UserError: naming the option to change.
    """
    name, size, own = config.dataset.name, config.dataset.image_size, config.gawwn
    missing = missing_annotations(config.method, name)
    if missing:
        raise UserError(
            f"method: found {GAWWN} with dataset.name {name}, {missing}; expected cub or "
            "synthetic_flowers, or another method"
        )
    if size not in CELLS:
        expected = ", ".join(map(str, CELLS))
        raise UserError(
            f"dataset.image_size: found {size}, expected one of {expected}, of which {GAWWN} has "
            "plans"
        )
    if own.locations == GENERATED and own.given_share == 0:
        raise UserError(
            "gawwn.given_share: found 0, expected more: a generator that is never given a part in "
            "training could not take one when it draws"
        )
    default: Any = GawwnConfig()
    for option in _KEYPOINTS_ALONE if own.locations != GENERATED else ():
        if getattr(own, option) != getattr(default, option):
            raise UserError(
                f"gawwn.{option}: found it set with gawwn.locations {own.locations}, which "
                f"generates no keypoints; expected nothing of it, or gawwn.locations {GENERATED}"
            )


def missing_annotations(method: str, dataset: str) -> str | None:
    """What a data set lacks that a method needs, in words."""
    if method == GAWWN and dataset in _WITHOUT_ANNOTATIONS:
        return "which has neither boxes nor parts"
    return None


def check_annotations(config: ExperimentConfig, dataset: CaptionedDataset) -> None:
    """Refuse a data set that lacks what a configuration's method needs, before it is prepared.

    Raises:
        UserError: naming the option or the missing file.
    """
    if _needs_locations(config):
        require_annotations(dataset, boxes=config.gawwn.locations == BOXES)


def method_locations(config: ExperimentConfig, dataset: CaptionedDataset) -> Locations | None:
    """The locations that a configuration's method is trained with, if it is.

    Raises:
        UserError: a file is missing or bad.
    """
    if not _needs_locations(config):
        return None
    return read_boxes(dataset) if config.gawwn.locations == BOXES else read_parts(dataset)


def random_locations(config: ExperimentConfig, images: int) -> np.ndarray | None:
    """Locations of no images in particular, as `method_locations` gives them, for a benchmark."""
    if not _needs_locations(config):
        return None
    draws = np.random.default_rng(0)
    if config.gawwn.locations == BOXES:
        corners, sides = 0.5 * draws.random((images, 2)), 0.25 + 0.25 * draws.random((images, 2))
        return np.stack([np.concatenate([corners, sides], 1)] * 2).astype(np.float32)
    parts = draws.random((images, len(_SOME_PARTS), 3))
    parts[:, :, 2] = 1
    return np.stack([parts] * 2).astype(np.float32)


def _needs_locations(config: ExperimentConfig) -> bool:
    """Even with locations "none" the networks have a map for each part."""
    return config.method == GAWWN
