"""How Table 1 is written; that it holds what was measured: tests/integration/test_tune.py."""

import pytest

from sdn_ray.errors import UserError
from sdn_ray.search.table1 import Row, check_table1, latex, row_cells


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


def test_a_table_needs_a_classifier():
    check_table1("squeezenet1_1:FILE")
    with pytest.raises(UserError, match=r"--score_test: found true .* no evaluation.classifier"):
        check_table1(None)
