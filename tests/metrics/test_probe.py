"""The probe against embeddings whose contents are known."""

from dataclasses import replace

import numpy as np

from sdn_ray.data.synthetic.species import PETAL_COUNTS, SPECIES
from sdn_ray.metrics.attributes import Shown
from sdn_ray.metrics.probe import attribute_probe

SOME = list(SPECIES.values())[::3]
COUNT = frozenset(("petal_count",))


def test_what_is_in_the_embedding_is_read_and_what_is_not_is_chance():
    draws = np.random.default_rng(0)
    shown = [Shown(one, COUNT | {"size"}) for one in SOME for _ in range(20)]
    counts = np.array([PETAL_COUNTS.index(meant.species.petal_count) for meant in shown])
    embeddings = np.concatenate([np.eye(5)[counts], draws.normal(size=(len(shown), 9))], axis=1)
    half = len(shown) // 2
    found = attribute_probe(embeddings[:half], shown[:half], embeddings[half:], shown[half:])
    assert found.keys() == {"petal_count", "size"}
    assert found["petal_count"] == 1.0
    assert abs(found["size"] - 0.5) < 0.1


def test_captions_that_do_not_name_it_do_not_count():
    first, second = SOME[0], replace(SOME[0], petal_count=12)
    shown = [Shown(first, COUNT), Shown(second, COUNT), Shown(second, frozenset())]
    known = np.array([[0.0], [1.0], [0.0]])
    assert attribute_probe(known, shown, known, shown) == {"petal_count": 1.0}
    assert attribute_probe(known, shown[2:], known, shown[2:]) == {}
