"""Caption → which words and pairs of neighbouring words it has: an encoder without a network.

It stands where ``CharCnnRnn`` can stand, needs no download and is fitted by counting. With
``text.whiten`` the images tell which of the words can be seen; without, a word that is in most
captions weighs as much as one that tells what the flower looks like.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from sdn_ray.errors import UserError
from sdn_ray.files import read_json, write_text

WORDS_FILE = "words.json"
_FORMAT = "sdn_ray.words"
_LEAST_OFTEN = 5  # a word or pair that fewer of the captions have is not read
_WORD = re.compile(r"\w+")


class _Content(TypedDict):
    format: Literal["sdn_ray.words"]
    vocabulary: Annotated[list[str], Field(min_length=1, max_length=1 << 16)]


class WordEncoder:
    """1 for every word and pair of neighbouring words of its vocabulary that a caption has, else 0.

    Args:
        vocabulary: words, and pairs with a blank between them; lower case.

    >>> encoder = WordEncoder(["red", "center", "red center"])
    >>> encoder.encode(["A center, red."]).tolist()
    [[1.0, 1.0, 0.0]]
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = tuple(vocabulary)
        self._places = {term: place for place, term in enumerate(self.vocabulary)}

    @property
    def embedding_dim(self) -> int:
        """Width of an embedding."""
        return len(self.vocabulary)

    def encode(
        self,
        captions: Sequence[str],
        batch_size: int = 256,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Embeddings of captions, float32 ``(captions, embedding_dim)``; see ``CharCnnRnn``."""
        embeddings = np.zeros((len(captions), self.embedding_dim), dtype=np.float32)
        for row, caption in enumerate(captions):
            known = [self._places[term] for term in _terms(caption) if term in self._places]
            embeddings[row, known] = 1
            if on_batch is not None and ((row + 1) % batch_size == 0 or row + 1 == len(captions)):
                on_batch(row + 1, len(captions))
        return embeddings

    def to(self, device: str) -> "WordEncoder":
        """Itself: there is nothing to move."""
        return self

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON, all or nothing."""
        write_text(path, json.dumps({"format": _FORMAT, "vocabulary": self.vocabulary}, indent=1))


def count_words(captions: Iterable[str], most: int) -> WordEncoder:
    """The encoder of the most frequent words and pairs of distinct captions.

    Args:
        captions: of the training classes.
        most: width of the embedding, at most.

    Raises:
        UserError: no word is frequent enough.
    """
    counts = Counter(term for caption in sorted(set(captions)) for term in _terms(caption))
    frequent = [term for term, count in counts.most_common(most) if count >= _LEAST_OFTEN]
    if not frequent:
        raise UserError(
            f"text.encoder: found no word in {_LEAST_OFTEN} captions, which `words` needs; "
            "expected more captions, or char_cnn_rnn"
        )
    return WordEncoder(frequent)


def load_word_encoder(path: Path) -> WordEncoder:
    """Read what ``WordEncoder.save`` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    content = read_json(path, _Content, "a vocabulary that sdn_ray wrote")
    return WordEncoder(content["vocabulary"])


def _terms(caption: str) -> list[str]:
    """The distinct words and pairs of a caption, in their order."""
    words = _WORD.findall(caption.lower())
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return list(dict.fromkeys([*words, *pairs]))
