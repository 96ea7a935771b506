"""Schemes (Table 3): each a list of stages."""

from dataclasses import dataclass
from typing import get_args

from sdn_ray.config import Scheme
from sdn_ray.data.batches import Rows

DIVERSE: Scheme = "sdn_diverse"
ADVERSARIAL: Scheme = "sdn_adversarial"  # not of the paper
SCHEMES: tuple[Scheme, ...] = tuple(name for name in get_args(Scheme) if name != ADVERSARIAL)
TWO_STAGE_SCHEMES: tuple[Scheme, ...] = ("sdn", DIVERSE, ADVERSARIAL)
STAGE_THREE = "stage_three"


@dataclass(frozen=True)
class Stage:
    """One stage of distillation: a loss, minimised for some epochs by a fresh optimiser."""

    name: str
    loss: str  # a key of `losses.LOSSES`, or `STAGE_THREE`
    epochs: int
    learning_rate: float
    samples: int = 1  # n, the images the generator draws for one caption in this stage
    decay_fraction: float = 0.0  # of its steps, the last, in which the learning rate falls to 0

    draws_pictures = True

    @property
    def rows(self) -> Rows:
        """An image and one of its captions; the heads of stage three also see wrong ones."""
        return Rows(wrong_captions=self.adversarial)

    @property
    def adversarial(self) -> bool:
        """Whether heads on the teacher's features learn beside the generator."""
        return self.loss == STAGE_THREE

    @property
    def rate_options(self) -> str:
        """Where the configuration has this stage's learning rates, in words."""
        if self.adversarial:
            section = f"distillation.{STAGE_THREE}"
            return f"{section}.learning_rate and {section}.heads_learning_rate"
        first = self.loss in ("image", "stage_one")
        return f"distillation.{'stage_one' if first else 'stage_two'}.learning_rate"

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step (from 0) of a stage of so many steps."""
        decaying = self.decay_fraction * steps
        if steps - step >= decaying:
            return self.learning_rate
        return self.learning_rate * (steps - step) / decaying


def scheme_stages(
    scheme: Scheme,
    *,
    epochs: tuple[int, int],
    learning_rates: tuple[float, float],
    decay_fractions: tuple[float, float] = (0.0, 0.0),
    samples: int = 1,
    grow: bool = False,
    third: Stage | None = None,
) -> tuple[Stage, ...]:
    """The stages of a scheme; those of 0 epochs are left out.

    A scheme of one stage trains for the epochs of both, so that schemes compare fairly; `image`
    and `stage_one` take the learning rate and its decay of stage one, `stage_two` and `joint`
    those of stage two.

    Args:
        scheme: one of `SCHEMES`.
        epochs: of stage one and of stage two.
        learning_rates: of stage one and of stage two.
        decay_fractions: of stage one and of stage two, see `Stage`.
        samples: n of diverse synthesis, used by ``sdn_diverse`` alone.
        grow: let ``sdn_diverse`` draw one sample in stage one and n in stage two (section 4.4).
        third: stage three of ``sdn_adversarial``, which alone has it.
    """

    def stage(name: str, half: int, epochs: int, samples: int = 1) -> Stage:
        return Stage(name, name, epochs, learning_rates[half], samples, decay_fractions[half])

    if scheme in TWO_STAGE_SCHEMES:
        last = samples if scheme == DIVERSE else 1
        stages = [
            stage("stage_one", 0, epochs[0], 1 if grow else last),
            stage("stage_two", 1, epochs[1], last),
        ]
        if scheme == ADVERSARIAL and third:
            stages.append(third)
        return tuple(stage for stage in stages if stage.epochs)
    return (stage(scheme, 0 if scheme in ("image", "stage_one") else 1, sum(epochs)),)
