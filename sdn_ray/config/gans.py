"""The methods that SDN is compared with: a section of the configuration for each."""

from dataclasses import dataclass, field
from typing import Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from sdn_ray.errors import checked


@dataclass(frozen=True)
@checked
class GanIntClsConfig:
    """GAN-INT-CLS (Reed et al., ICML 2016); the defaults are the authors'.

    Outside this section three things are not: images are mirrored, but not cropped (theirs are cut
    from images of 76/64 of the size), captions are whitened unless `text.whiten` is false, and
    `training.batch_size` is smaller than their 64.

    Args:
        epochs: Passes over the training images.
        learning_rate: Of both Adams in the first epochs.
        halving_epochs: Epochs after which the rate is halved, again and again.
        captions_averaged: Captions of an image whose embeddings are averaged in a step.
        cls: Show the discriminator photographs with captions of other classes, too.
        interpolate: Train the generator on captions between captions, too ("INT").
        real_label: What the discriminator is to say of photographs.
        generator_width: Channels of the generator's last map; the first has up to 8 times as many.
        discriminator_width: Channels of the discriminator's first map.
        text_width: To how many numbers both compress a caption.
        noise_dim: How many normal numbers are drawn beside the caption.
    """

    epochs: PositiveInt = 600
    learning_rate: PositiveFloat = 2e-4
    halving_epochs: PositiveInt = 100
    captions_averaged: PositiveInt = 4
    cls: bool = True
    interpolate: bool = True
    real_label: ClosedUnitInterval = 1.0
    generator_width: PositiveInt = 128
    discriminator_width: PositiveInt = 64
    text_width: PositiveInt = 128
    noise_dim: PositiveInt = 100


@dataclass(frozen=True)
@checked
class StackStageConfig:
    """One of the stages of StackGAN.

    Args:
        epochs: Passes over the training images. Without any for stage two there is none.
        learning_rate: Of both Adams in the first epochs.
        halving_epochs: Epochs after which the rate is halved, again and again.
    """

    epochs: NonNegativeInt = 600
    learning_rate: PositiveFloat = 2e-4
    halving_epochs: PositiveInt = 100


@dataclass(frozen=True)
@checked
class StackGanConfig:
    """StackGAN (Zhang et al., ICCV 2017); the defaults are the authors'.

    What `gan_int_cls` says of images, captions and batches holds for it, too; birds are not cut
    out.

    Args:
        stage_one: Drawing small images from captions.
        stage_two: Drawing images of `dataset.image_size` from small ones and their captions.
        first_size: Height and width of the first stage's images: a power of two.
        captions_averaged: Captions of an image whose embeddings are averaged in a step.
        kl_weight: Of the divergence of the captions' codes from a normal law.
        generator_width: Channels of the generators, as in the first stage's last map.
        discriminator_width: Channels of the discriminators' first maps.
        text_width: To how many numbers all of them compress a caption.
        noise_dim: How many normal numbers the first stage takes beside the caption.
    """

    stage_one: StackStageConfig = field(default_factory=lambda: StackStageConfig(halving_epochs=50))
    stage_two: StackStageConfig = field(default_factory=StackStageConfig)
    first_size: PositiveInt = 64
    captions_averaged: PositiveInt = 4
    kl_weight: NonNegativeFloat = 2.0
    generator_width: PositiveInt = 128
    discriminator_width: PositiveInt = 64
    text_width: PositiveInt = 128
    noise_dim: PositiveInt = 100


@dataclass(frozen=True)
@checked
class GawwnStageConfig:
    """One of the two trainings of GAWWN.

    Args:
        epochs: Passes over the training images.
        learning_rate: Of both Adams in the first epochs.
        halving_epochs: Epochs after which the rate is halved, again and again.
    """

    epochs: PositiveInt = 600
    learning_rate: PositiveFloat = 2e-4
    halving_epochs: PositiveInt = 100


@dataclass(frozen=True)
@checked
class GawwnConfig:
    """GAWWN (Reed et al., NIPS 2016), for data sets with boxes and parts; the authors' defaults.

    What `gan_int_cls` says of images, captions and batches holds for it, too; theirs are of 16
    images, of 64 keypoint rows.

    Args:
        locations: What tells the networks where things are: keypoints, generated from captions for
            drawing; boxes, those of training images for drawing; or none, all keypoints hidden.
        keypoint_stage: Generating keypoints from captions, whose last weights are kept, not their
            average. With other locations there is none.
        image_stage: Drawing images from captions and locations.
        captions_averaged: Captions of an image whose embeddings are averaged in a step of the
            second stage; the first has one.
        given_share: How many keypoints the keypoint generator is given in training.
        generator_width: Channels of the generator, as in its last but one map at 128 pixels.
        discriminator_width: Channels of the discriminator's first maps.
        text_width: To how many numbers the discriminator compresses a caption.
        noise_dim: How many normal numbers are drawn beside the caption, the same for keypoints and
            image.
    """

    locations: Literal["keypoints", "boxes", "none"] = "keypoints"
    keypoint_stage: GawwnStageConfig = field(default_factory=lambda: GawwnStageConfig(epochs=200))
    image_stage: GawwnStageConfig = field(default_factory=GawwnStageConfig)
    captions_averaged: PositiveInt = 4
    given_share: ClosedUnitInterval = 0.1
    generator_width: PositiveInt = 128
    discriminator_width: PositiveInt = 128
    text_width: PositiveInt = 128
    noise_dim: PositiveInt = 100
