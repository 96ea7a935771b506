"""GAWWN (Reed et al., NIPS 2016) as a method of the loop: keypoints, then images at them."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

from sdn_ray.data.batches import Batch, Rows
from sdn_ray.data.scaled import scaled
from sdn_ray.methods.adversarial_losses import discriminator_loss, generator_loss
from sdn_ray.methods.method import Noise, Step, update
from sdn_ray.methods.sdn import Computing
from sdn_ray.methods.staged_gan import GanStage, StagedGan
from sdn_ray.methods.workers import data_parallel
from sdn_ray.models.gawwn import GawwnGenerator

KEYPOINTS, IMAGES = "keypoints", "images"  # the stages
_SECTIONS = {KEYPOINTS: "keypoint_stage", IMAGES: "image_stage"}
# What a discriminator sees beside captions: of each kind its arguments, those that are drawn last.
Examples = list[tuple[Tensor, ...]]


@dataclass(frozen=True)
class GawwnStage(GanStage):
    """One of the two trainings.

    Args:
        located: the networks are told where things are.
    """

    located: bool = True

    @property
    def draws_pictures(self) -> bool:  # type: ignore[override]
        """Not while keypoints are generated, which are shown as dots."""
        return self.name == IMAGES

    @property
    def rate_options(self) -> str:
        """Where the configuration has its learning rate."""
        return f"gawwn.{_SECTIONS[self.name]}.learning_rate"

    @property
    def rows(self) -> Rows:
        """Locations; to draw images these, a wrong one with its own, and several captions."""
        drawn = self.name == IMAGES
        return Rows(wrong=drawn, captions=self.captions, located=self.located, images=drawn)


class Gawwn(StagedGan[GawwnGenerator, GawwnStage]):
    """A generator of keypoints, then one of images at given places; each has a discriminator.

    Args:
        generator: both, with their first weights.
        discriminators: of each stage by its name, with their first weights.
        stages: what is trained.
        given_share: how many parts the generator of keypoints is given in training.
        seed: of the noise with which an average's statistics are measured.
        computing: how; the steps are not compiled.
    """

    name = "gawwn"
    first_stage, draws_first = KEYPOINTS, "draws_keypoints"

    def __init__(
        self,
        generator: GawwnGenerator,
        discriminators: Mapping[str, nn.Module],
        stages: tuple[GawwnStage, ...],
        *,
        given_share: float = 0.1,
        seed: int = 0,
        computing: Computing | None = None,
    ) -> None:
        super().__init__(generator, discriminators, stages, seed=seed, computing=computing)
        self._given_below = _normal_quantile(given_share)

    def terms(self, stage: GawwnStage) -> tuple[str, ...]:
        """L_D's terms and L_G, then D's mean probabilities of what is real, wrong and fake."""
        seen = ("real", "wrong", "fake") if stage.name == IMAGES else ("real", "fake")
        return (*(f"d_{name}" for name in seen), "g", *(f"probability_{name}" for name in seen))

    def losses(self, stage: GawwnStage) -> int:
        """L_D's terms and L_G."""
        return 4 if stage.name == IMAGES else 3

    def steps(self, stage: GawwnStage, optimizers: dict[str, torch.optim.Optimizer]) -> Step:
        """One update of the discriminator, then one of the generator against the new one.

        Both see the same fakes, as in the authors' code.
        """
        self.generator.train()
        discriminator = self.discriminators[stage.name].train()
        draw, judge = data_parallel(self._own(stage)), data_parallel(discriminator)
        examples_of = self._keypoints if stage.name == KEYPOINTS else self._images

        def step(batch: Batch, noise: Noise) -> Tensor:
            with self.computing.autocast():
                *others, fake = examples_of(batch, noise, draw)
                shown = [*others, tuple(part.detach() for part in fake)]
                logits = judge(*map(list, zip(*shown, strict=True)), batch.embeddings)
            wrong = logits[1] if len(logits) == 3 else None
            loss = discriminator_loss(logits[0], wrong, logits[-1])
            update(optimizers["discriminator"], loss.total)
            # Frozen, and without its workers: its gradients are nobody's.
            discriminator.requires_grad_(False)
            with self.computing.autocast():
                wish = generator_loss(discriminator(*fake, batch.embeddings))
            discriminator.requires_grad_(True)
            update(optimizers["generator"], wish)
            with torch.no_grad():
                seen = torch.stack([one.float().sigmoid().mean() for one in logits])
                return torch.cat([loss.terms, wish.detach()[None], seen])

        return step

    def _own(self, stage: GawwnStage) -> nn.Module:
        """The generator that a stage trains."""
        if stage.name == IMAGES:
            return self.generator.images
        assert self.generator.keypoints is not None
        return self.generator.keypoints

    def _keypoints(self, batch: Batch, noise: Noise, draw: nn.Module) -> Examples:
        """Real parts, and fake ones, some of which are the real ones."""
        assert batch.locations is not None
        parts = batch.locations
        switch = noise(len(parts), parts.shape[1]) < self._given_below
        codes = self.generator.whitening(batch.embeddings)
        z = noise(len(parts), self.generator.z_dim)
        return [(parts,), (draw(codes, z, parts * switch[:, :, None]),)]

    def _images(self, batch: Batch, noise: Noise, draw: nn.Module) -> Examples:
        """Real images, those of other classes, and images that are drawn at the real ones' places.

        Each with its own locations; where there are none, with all parts hidden.
        """
        assert batch.wrong is not None
        places, wrong_places = batch.locations, batch.wrong_locations
        if places is None or wrong_places is None:
            hidden = torch.zeros(len(batch.images), len(self.generator.parts), 3)
            places = wrong_places = hidden.to(self.device)
        codes = self.generator.whitening(batch.embeddings)
        fake = draw(codes, noise(len(codes), self.generator.z_dim), places)
        real, wrong = scaled(batch.images), scaled(batch.wrong)
        return [(real, places), (wrong, wrong_places), (fake, places)]


def _normal_quantile(share: float) -> float:
    """Below what this share of normal numbers lies."""
    if share in (0, 1):
        return torch.inf if share else -torch.inf
    return NormalDist().inv_cdf(share)
