"""Captions of the embedded data set: sentences about what can be seen in an image."""

import re

import numpy as np

from sdn_ray.data.synthetic.species import Species

CAPTIONS_PER_IMAGE = 10

# Every template names the petal colour; most name the centre, many the background and the count.
_TEMPLATES = (
    "this flower has {count} {petal} petals and a {center} center.",
    "the petals of this flower are {petal} and {shape}, and its center is {center}.",
    "a {petal} flower with a {center} center {against}.",
    "a {size} {petal} blossom with {count} {shape} petals {against}.",
    "{count} {shape} {petal} petals surround a {center} center.",
    "a {size} flower with {petal} petals that are {shape}, and a {center} middle.",
    "this {size} {petal} flower with a {center} center is seen {against}.",
    "a flower that has {count} {petal} petals with a {center} disc in the middle.",
    "there are {count} petals on this {petal} flower, which stands {against}.",
    "{against} there is a {petal} flower with a {center} center.",
    "the {size} blossom has {shape} petals that are {petal}, {count} in number.",
    "this {petal} blossom has {count} petals around a round {center} center.",
    "{petal} petals, {shape} in shape, with {center} stamens in the center.",
    "a single {petal} bloom with a {center} center and {count} {shape} petals {against}.",
    "petals that are {petal} grow around the {center} center of this {size} flower.",
    "a photo of a {petal} flower, its {count} petals {shape}, its center {center}, {against}.",
)
_COUNTS = {4: "four", 5: "five", 6: "six", 8: "eight", 12: "twelve"}
_SHAPES = {
    "round": ("round", "rounded"),
    "pointed": ("pointed", "pointy"),
    "heart": ("heart-shaped", "notched"),
    "narrow": ("narrow", "slender"),
}
_SIZES = {"small": ("small", "little"), "large": ("large", "big")}
_AGAINST = {
    "leaves": ("in front of green leaves", "among green leaves", "on a leafy green background"),
    "soil": ("above brown soil", "on a brown background", "against the brown earth"),
    "night": ("in the dark", "on a dark background", "in front of a dark night"),
    "stone": ("on grey stone", "in front of a grey stone wall", "on a grey background"),
    "sky": ("against the blue sky", "under a light blue sky", "in front of the pale blue sky"),
}
# What a caption says when it names an attribute; every template that has one matches.
_CENTER_WORDS = re.compile(r"\b(center|middle|stamens)\b")


def named_attributes(caption: str, species: Species) -> frozenset[str]:
    """Which attributes of a ``species`` one of its captions names: fields of `Species`."""
    said = {
        "petal_color": species.petal_color in caption,
        "center_color": _CENTER_WORDS.search(caption) is not None,
        "background": any(words in caption for words in _AGAINST[species.background]),
        "petal_count": _has_word(caption, (_COUNTS[species.petal_count],)),
        "petal_shape": _has_word(caption, _SHAPES[species.petal_shape]),
        "size": _has_word(caption, _SIZES[species.size]),
    }
    return frozenset(name for name, named in said.items() if named)


def _has_word(caption: str, words: tuple[str, ...]) -> bool:
    return any(re.search(rf"(?<![\w-]){word}(?![\w-])", caption) for word in words)


def draw_captions(species: Species, rng: np.random.Generator) -> tuple[str, ...]:
    """Ten different lower-case sentences about a ``species``, each under 201 characters."""
    chosen = rng.choice(len(_TEMPLATES), CAPTIONS_PER_IMAGE, replace=False)
    return tuple(_fill(_TEMPLATES[index], species, rng) for index in chosen)


def _fill(template: str, species: Species, rng: np.random.Generator) -> str:
    sentence = template.format(
        petal=species.petal_color,
        center=species.center_color,
        count=_COUNTS[species.petal_count],
        shape=_pick(_SHAPES[species.petal_shape], rng),
        size=_pick(_SIZES[species.size], rng),
        against=_pick(_AGAINST[species.background], rng),
    )
    return sentence.replace("a orange", "an orange")


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]
