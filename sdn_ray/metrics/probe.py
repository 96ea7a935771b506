"""What embeddings say of attributes: a linear classifier of each, tried on unseen species."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sdn_ray.metrics.attributes import ATTRIBUTES, Shown

_RIDGE = 0.01  # of the number of captions; embeddings have unit variance then


def attribute_probe(
    known: np.ndarray, known_shown: Sequence[Shown], seen: np.ndarray, seen_shown: Sequence[Shown]
) -> dict[str, float]:
    """How often ridge regression on embeddings names an attribute right, where a caption has it.

    An attribute that no caption of either side names is left out.

    Args:
        known: (n, dim) embeddings of captions that the classifiers are fitted to.
        known_shown: what each of them asks for.
        seen: (m, dim) embeddings of captions of other species.
        seen_shown: what each of them asks for.
    """
    found = {}
    for name in ATTRIBUTES:
        own, labels = _naming(known, known_shown, name)
        tried, expected = _naming(seen, seen_shown, name)
        if len(set(labels)) < 2 or not expected:
            continue
        classifier = make_pipeline(StandardScaler(), RidgeClassifier(_RIDGE * len(labels)))
        classifier.fit(own, labels)
        found[name] = float((classifier.predict(tried) == np.array(expected)).mean())
    return found


def _naming(
    embeddings: np.ndarray, shown: Sequence[Shown], name: str
) -> tuple[np.ndarray, list[str]]:
    """The embeddings of the captions that name an attribute, and its values."""
    rows = [row for row, meant in enumerate(shown) if name in meant.named]
    return embeddings[rows], [str(getattr(shown[row].species, name)) for row in rows]
