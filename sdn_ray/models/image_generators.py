"""The generators of all methods: what drawing and export ask of each, and a table of them."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NotRequired

from pydantic import NonNegativeInt, PositiveInt, TypeAdapter
from typing_extensions import TypedDict

from sdn_ray.errors import UserError
from sdn_ray.models.gan_int_cls import GanIntClsGenerator
from sdn_ray.models.gawwn import GawwnGenerator, Locations
from sdn_ray.models.generator import MODULATED_BY, Activation, Generator, Upsampling
from sdn_ray.models.plan import Plan
from sdn_ray.models.stackgan import StackGanGenerator

# Each has `embedding_dim`, `image_size`, `samples`, `noise_dim`, `whitening`, `settings`, and
# `pixels(embeddings, noise)`.
ImageGenerator = Generator | GanIntClsGenerator | StackGanGenerator | GawwnGenerator

SDN, GAN_INT_CLS, STACKGAN, GAWWN = "sdn", "gan_int_cls", "stackgan", "gawwn"


class MirrorSettings(TypedDict):
    """What `Generator.settings` gives."""

    plan: str
    embedding_dim: PositiveInt
    image_size: PositiveInt
    fc_width: PositiveInt
    samples: PositiveInt
    batch_norm: bool
    # Models of earlier versions have none of these.
    upsampling: NotRequired[Upsampling]
    whitened_dim: NotRequired[PositiveInt | None]
    noise_dim: NotRequired[NonNegativeInt]
    modulated: NotRequired[bool]
    modulated_by: NotRequired[Literal["g_fc7"]]
    activation: NotRequired[Activation]


class GanIntClsSettings(TypedDict):
    """What `GanIntClsGenerator.settings` gives."""

    embedding_dim: PositiveInt
    image_size: PositiveInt
    width: PositiveInt
    text_width: PositiveInt
    noise_dim: PositiveInt
    whitened_dim: PositiveInt | None


class StackGanSettings(TypedDict):
    """What `StackGanGenerator.settings` gives."""

    embedding_dim: PositiveInt
    image_size: PositiveInt
    first_size: PositiveInt
    width: PositiveInt
    text_width: PositiveInt
    z_dim: PositiveInt
    whitened_dim: PositiveInt | None
    stage_two: bool


class GawwnSettings(TypedDict):
    """What `GawwnGenerator.settings` gives."""

    embedding_dim: PositiveInt
    image_size: PositiveInt
    width: PositiveInt
    z_dim: PositiveInt
    whitened_dim: PositiveInt | None
    locations: Locations
    parts: list[str]


def _mirror(settings: MirrorSettings) -> Generator:
    given: dict[str, Any] = {**settings}
    if given.pop("modulated_by", None) != MODULATED_BY and given.get("modulated"):
        raise UserError(
            "its generator is modulated by caption and noise themselves, as earlier versions of "
            "sdn_ray had it, which this one does not draw with"
        )
    return Generator(Plan.parse(given.pop("plan")), **given)


def _gan_int_cls(settings: GanIntClsSettings) -> GanIntClsGenerator:
    return GanIntClsGenerator(**settings)


def _stackgan(settings: StackGanSettings) -> StackGanGenerator:
    return StackGanGenerator(**settings)


def _gawwn(settings: GawwnSettings) -> GawwnGenerator:
    return GawwnGenerator(**settings)


_KINDS: dict[str, tuple[TypeAdapter[Any], Callable[[Any], ImageGenerator]]] = {
    SDN: (TypeAdapter(MirrorSettings), _mirror),
    GAN_INT_CLS: (TypeAdapter(GanIntClsSettings), _gan_int_cls),
    STACKGAN: (TypeAdapter(StackGanSettings), _stackgan),
    GAWWN: (TypeAdapter(GawwnSettings), _gawwn),
}


def generator_of(method: str, settings: Mapping[str, Any]) -> ImageGenerator:
    """A method's generator, whose weights are to come.

    Args:
        method: its name.
        settings: as its generator's `settings` gives them.

    Raises:
        ValueError: no such method, or settings that it does not have.
        UserError: settings that do not fit together.
    """
    if method not in _KINDS:
        raise ValueError(f"method: found {method}, expected one of {', '.join(_KINDS)}")
    adapter, make = _KINDS[method]
    return make(adapter.validate_python(dict(settings), strict=True))


def method_of(generator: ImageGenerator) -> str:
    """Which method a generator belongs to."""
    if isinstance(generator, Generator):
        return SDN
    if isinstance(generator, GawwnGenerator):
        return GAWWN
    return GAN_INT_CLS if isinstance(generator, GanIntClsGenerator) else STACKGAN
