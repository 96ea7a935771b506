"""How Table 1 is written; that it holds what was measured: tests/integration/test_tune.py."""

from pathlib import Path

import pytest

from sdn_ray.config import DatasetConfig, EvaluationConfig, ExperimentConfig
from sdn_ray.errors import UserError
from sdn_ray.runs.tables import latex
from sdn_ray.search.space import SearchSpace
from sdn_ray.search.table1 import (
    Row,
    check_table1,
    footnotes,
    in_order,
    row_cells,
)


def test_a_row_has_means_and_deviations_over_its_seeds():
    found = {"score": [2.0, 4.0], "epochs": [24, 24], "images seen": [145_000.0, 145_000.0]}
    names = ["score", "FID", "epochs", "images seen"]
    assert row_cells(Row("SDN", 2, found), names) == ["SDN", "2", "3 ± 1", "–", "24", "145000"]
    assert row_cells(Row("real images", None, {"score": [9.5]}), names[:2]) == [
        "real images",
        "",
        "9.5",
        "–",
    ]


def test_latex_has_no_bare_special_characters():
    text = latex(["method", "colours, %"], [["GAN_INT & CLS", "1 ± 2"], ["SDN", "3"]])
    assert text == (
        "\\begin{tabular}{lr}\n\\toprule\nmethod & colours, \\% \\\\\n\\midrule\n"
        "GAN\\_INT \\& CLS & 1 $\\pm$ 2 \\\\\nSDN & 3 \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


def config_of(name, classifier=None):
    return ExperimentConfig(
        dataset=DatasetConfig(name), evaluation=EvaluationConfig(classifier=classifier)
    )


def test_a_table_of_photographs_needs_a_classifier():
    check_table1(config_of("oxford_flowers", "squeezenet1_1:FILE"))
    check_table1(config_of("synthetic_flowers"))
    with pytest.raises(UserError, match=r"--score_test: found true .* no evaluation.classifier"):
        check_table1(config_of("oxford_flowers"))


def space_of(*rows, left_out):
    return SearchSpace(Path("space.yaml"), (), rows={row: {} for row in rows}, left_out=left_out)


def test_rows_that_no_trial_trains_stand_in_their_places():
    trained = ("A, width 3", "B", "B, ours")
    why = dict.fromkeys("CD", "flowers, which has no parts")
    space = space_of("C", "A", "B", "D", "B, ours", left_out=why)
    assert in_order(trained, space) == ["C", "A, width 3", "B", "D", "B, ours"]
    last = space_of("A", "B", "B, ours", "C", left_out={"C": why["C"]})
    assert in_order(trained, last)[-1] == "C"
    rows = {"C": {"images": "/c"}, "A": {}, "D": {}, "E": {"images": "/e"}, "B": {}}
    mixed = SearchSpace(Path("space.yaml"), (), rows=rows, left_out={"D": "flowers"})
    assert in_order(("A", "B"), mixed) == ["C", "A", "D", "E", "B"]


def test_rows_that_no_trial_trains_have_dashes_and_footnotes():
    rows = {"A": {}, "C": {}, "E": {"images": "/data/e_1"}}
    space = SearchSpace(Path("space.yaml"), (), rows=rows, left_out={"C": "flowers"})
    notes = footnotes(space)
    assert notes == ["† C: not trained on flowers", "‡ E: one set of images, /data/e_1"]
    assert row_cells(Row("C†", None, {}), ["score"]) == ["C†", "", "–"]
    found = Row("E‡", None, {"score": [2.0]})
    assert row_cells(found, ["score", "hours"]) == ["E‡", "", "2", "–"]
    text = latex(["method"], [["C†"], ["E‡"]], notes)
    assert "C$\\dagger$ \\\\\nE$\\ddagger$ \\\\\n" in text
    assert text.endswith(
        "\\par $\\dagger$ C: not trained on flowers\n"
        "\\par $\\ddagger$ E: one set of images, /data/e\\_1\n"
    )
