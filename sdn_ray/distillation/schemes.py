"""Schemes (Table 3): each a list of stages."""

from dataclasses import dataclass

SCHEMES = ("image", "stage_one", "stage_two", "joint", "sdn", "sdn_diverse")
TWO_STAGE_SCHEMES = ("sdn", "sdn_diverse")


@dataclass(frozen=True)
class Stage:
    """One stage of distillation: a loss, minimised for some epochs by a fresh optimiser."""

    name: str
    loss: str  # a key of `losses.LOSSES`
    epochs: int
    learning_rate: float
    samples: int = 1  # n, the images the generator draws for one caption in this stage

    @property
    def option(self) -> str:
        """Where the configuration has this stage's epochs and learning rate."""
        first = self.loss in ("image", "stage_one")
        return f"distillation.{'stage_one' if first else 'stage_two'}"


def scheme_stages(
    scheme: str,
    *,
    epochs: tuple[int, int],
    learning_rates: tuple[float, float],
    samples: int = 1,
    grow: bool = False,
) -> tuple[Stage, ...]:
    """The stages of a scheme.

    A scheme of one stage trains for the epochs of both, so that schemes compare fairly; `image`
    and `stage_one` take the learning rate of stage one, `stage_two` and `joint` that of stage two.

    Args:
        scheme: one of `SCHEMES`.
        epochs: of stage one and of stage two.
        learning_rates: of stage one and of stage two.
        samples: n of diverse synthesis, used by ``sdn_diverse`` alone.
        grow: let ``sdn_diverse`` draw one sample in stage one and n in stage two (section 4.4).
    """
    if scheme in TWO_STAGE_SCHEMES:
        last = samples if scheme == "sdn_diverse" else 1
        return (
            Stage("stage_one", "stage_one", epochs[0], learning_rates[0], 1 if grow else last),
            Stage("stage_two", "stage_two", epochs[1], learning_rates[1], last),
        )
    rate = learning_rates[0] if scheme in ("image", "stage_one") else learning_rates[1]
    return (Stage(scheme, scheme, sum(epochs), rate),)
