"""The notebook runs from its first cell to its last, and what it trains draws what captions say."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "jobs" / "draw.ipynb"
CHECK = """
for caption, most in {"a red flower": 0, "a blue flower": 2, "a white flower": None}.items():
    [picture] = model.draw(caption)
    middle = np.asarray(picture)[8:16, 8:16].mean((0, 1))
    if most is None:
        assert middle.min() > 120, middle
    else:
        assert middle[most] - np.delete(middle, most).max() > 40, middle
"""


def test_the_notebook_trains_and_draws(tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    notebook.cells.append(nbformat.v4.new_code_cell(CHECK))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=where).execute()
    shown = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
    text = "".join(output.text for output in shown if output.output_type == "stream")
    assert [line.partition(":")[0] for line in text.splitlines()] == [
        "stage_one_loss",
        "stage_two_loss",
    ]
