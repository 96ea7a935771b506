"""Symmetrical Distillation Networks as a method of the loop: every scheme of Table 3."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdn_ray.data.batches import Batch
from sdn_ray.distillation.adversarial import TERMS
from sdn_ray.distillation.layer_weights import LayerWeights
from sdn_ray.distillation.losses import LOSSES, term_names
from sdn_ray.distillation.schemes import Stage
from sdn_ray.methods.method import (
    Noise,
    Step,
    update,
    with_noise,
    with_settling_noise,
)
from sdn_ray.methods.precision import Precision
from sdn_ray.methods.sdn_adversarial import STAGE_THREE_TERMS, Adversary
from sdn_ray.methods.workers import data_parallel, with_whole_batches
from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import normalise
from sdn_ray.models.teacher import Teacher

Terms = tuple[Tensor, Tensor]  # the loss, and what it is made of
Forward = Callable[[Batch, Noise], Terms]
GROWTH_NOISE = 0.1  # of the weights' standard deviation, see Generator.grow_samples


@dataclass(frozen=True)
class Computing:
    """How a method computes; none of it belongs to the mathematics but the precision."""

    precision: Precision = "fp32"  # bf16: autocast of the networks
    compile: bool = False
    device: str = "cpu"

    def autocast(self) -> torch.autocast:
        """Around the networks: it does nothing in fp32."""
        kind, enabled = torch.device(self.device).type, self.precision == "bf16"
        return torch.autocast(kind, torch.bfloat16 if enabled else None, enabled)


class SDN:
    """A generator that learns from a frozen teacher.

    Args:
        generator: with its first weights.
        teacher: whose mirror it is.
        stages: of the scheme.
        weights: of the layers.
        adversary: of stage three, where the scheme has one.
        seed: of the samples that grow, and of the noise with which an average is measured.
        computing: how; stage three is not compiled.
    """

    name = "sdn"

    def __init__(
        self,
        generator: Generator,
        teacher: Teacher,
        stages: tuple[Stage, ...],
        weights: LayerWeights,
        *,
        adversary: Adversary | None = None,
        seed: int = 0,
        computing: Computing | None = None,
    ) -> None:
        self.computing = computing or Computing()
        self.device = torch.device(self.computing.device)
        self.adversary = adversary
        if adversary:
            adversary.heads.to(self.device).to(memory_format=torch.channels_last)
        self.generator = generator.to(self.device).to(memory_format=torch.channels_last)
        with_whole_batches(self.generator, self.device)
        # A frozen network needs no float32 master copy under autocast.
        dtype = torch.bfloat16 if self.computing.precision == "bf16" else torch.float32
        self.teacher = teacher.to(self.device, dtype).to(memory_format=torch.channels_last)
        self.stages, self.weights, self.seed = stages, weights, seed

    def terms(self, stage: Stage) -> tuple[str, ...]:
        """The layers, and `image`: the weighted batch means that a loss is made of.

        In stage three what the heads and the generator lose, and the mean logits of all heads.
        """
        if stage.adversarial:
            return STAGE_THREE_TERMS
        return term_names(stage.loss, self.teacher.plan.names)

    def losses(self, stage: Stage) -> int:
        """All of the terms; in stage three not the logits."""
        return len(TERMS if stage.adversarial else self.terms(stage))

    def drawn_from(self, embeddings: Iterable[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Embeddings, and noise where the generator takes it."""
        if not self.generator.noise_dim:
            return ((batch,) for batch in embeddings)
        return with_settling_noise(embeddings, self.generator.noise_dim, self.seed, self.device)

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The generator's, and the heads'."""
        yield from self.generator.named_parameters()
        if self.adversary:
            yield from self.adversary.heads.named_parameters()

    def training_state(self) -> dict[str, Any]:
        """Generator, samples, layer weights and heads; the teacher is a file."""
        state = {
            "generator": self.generator.state_dict(),
            "samples": self.generator.samples,
            "layer_weights": {"layers": list(self.weights.layers), "image": self.weights.image},
        }
        return state | ({"heads": self.adversary.heads.state_dict()} if self.adversary else {})

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Become what `training_state` told of."""
        if self.generator.samples != state["samples"]:
            self.generator.grow_samples(state["samples"], noise=0, seed=0)  # for its shape alone
        self.generator.load_state_dict(state["generator"])
        self.weights = stored_weights(state)
        if self.adversary:
            self.adversary.heads.load_state_dict(state["heads"])

    def begin(self, stage: Stage) -> dict[str, torch.optim.Optimizer]:
        """Grow the samples that a stage draws; Adam (section 4.1), in stage three two."""
        if self.generator.samples != stage.samples:
            self.generator.grow_samples(stage.samples, GROWTH_NOISE, self.seed)
        if stage.adversarial:
            return self._judged().optimizers(self.generator, stage.learning_rate)
        adam = torch.optim.Adam(self.generator.parameters(), lr=stage.learning_rate, fused=True)
        return {"generator": adam}

    def steps(self, stage: Stage, optimizers: dict[str, torch.optim.Optimizer]) -> Step:
        """Forward, backward, Adam."""
        if stage.adversarial:
            autocast = self.computing.autocast
            return self._judged().steps(self.generator, self.teacher, optimizers, autocast)
        self.generator.train()
        forward, optimizer = self._forward(stage), optimizers["generator"]

        def step(batch: Batch, noise: Noise) -> Tensor:
            total, terms = forward(batch, noise)
            update(optimizer, total)
            return terms

        return step

    def _judged(self) -> Adversary:
        assert self.adversary is not None, "stage three needs an adversary"
        return self.adversary

    def _drawn_from(self, batch: Batch, noise: Noise) -> tuple[Tensor, ...]:
        """What the generator is called with in a step."""
        return with_noise(batch.embeddings, self.generator.noise_dim, noise)

    def _forward(self, stage: Stage) -> Forward:
        model = data_parallel(self.generator)

        def forward(pixels: Tensor, drawn_from: tuple[Tensor, ...], weights: LayerWeights) -> Terms:
            images = normalise(pixels)
            with self.computing.autocast():
                output = model(*drawn_from)
                loss = LOSSES[stage.loss](images, output, weights, self.teacher)
            return loss.total, loss.terms

        if self.computing.compile:
            return self._compiled(forward)
        return lambda batch, noise: forward(
            batch.images, self._drawn_from(batch, noise), self.weights
        )

    def _compiled(
        self, forward: Callable[[Tensor, tuple[Tensor, ...], LayerWeights], Terms]
    ) -> Forward:
        """Generator, teacher and loss as one compiled graph."""
        # The weights as a tensor, not as numbers in the graph: trials that differ in them share
        # what was compiled.
        values = torch.tensor([*self.weights.layers, self.weights.image], device=self.device)

        def with_values(pixels: Tensor, drawn_from: tuple[Tensor, ...], values: Tensor) -> Terms:
            *layers, image = values.unbind()
            return forward(pixels, drawn_from, LayerWeights(tuple(layers), image))

        torch.compiler.reset()  # graphs of earlier stages count against a limit of recompilations
        compiled = torch.compile(with_values, dynamic=False)
        return lambda batch, noise: compiled(batch.images, self._drawn_from(batch, noise), values)


def stored_weights(state: dict[str, Any]) -> LayerWeights:
    """The layer weights that a checkpoint carries."""
    weights = state["layer_weights"]
    return LayerWeights(tuple(weights["layers"]), weights["image"])
