"""The notebooks of examples/: each runs in a fresh kernel without a warning, with outputs like those in its file.

`python tests/test_notebooks.py` runs them and writes their outputs into the files.
"""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "examples"
NOTEBOOKS = ["check_your_layer", "digits", "your_own_table"]

#: Run before the first cell. Warnings go to stderr. Without ipywidgets `progress` prints lines, as in the files.
FIRST = ["import sys, warnings", "warnings.simplefilter('default')", "sys.modules['ipywidgets'] = None"]


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(notebook, folder, environment):
    """The notebook with new outputs, and nothing that tells one run from another but numbers."""
    client = NotebookClient(
        notebook, timeout=200, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": folder}},
        extra_arguments=[f"--IPKernelApp.exec_lines={line}" for line in FIRST],
    )  # fmt: skip
    client.execute(env=environment)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def kinds(cell):
    """What a cell shows: the type of each output and its forms, and the words of plain text without its numbers."""
    for output in cell.get("outputs", ()):
        forms = output.get("data", {})
        text = output.get("text") or forms.get("text/plain", "")
        lines = [re.sub(r"-?\d[\d,.]*(e[-+]?\d+)?", "#", line).split() for line in text.splitlines()]
        # `progress` prints more lines where a run takes longer.
        yield output.output_type, output.get("name"), sorted(forms), sorted({" ".join(line) for line in lines})


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks(name, tmp_path):
    quickly = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling takes most of their time
    stored, fresh = read(name), executed(read(name), tmp_path, quickly)
    assert [list(kinds(cell)) for cell in fresh.cells] == [list(kinds(cell)) for cell in stored.cells]
    assert [
        output for cell in fresh.cells for output in cell.get("outputs", ()) if output.get("name") == "stderr"
    ] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_outputs_are_complete_and_small(name):
    notebook, path = read(name), FOLDER / f"{name}.ipynb"
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    assert pictures
    assert path.stat().st_size < 200_000
    assert [cell.metadata for cell in notebook.cells if cell.metadata] == []
    assert not re.search(r"/(home|root|tmp|Users)/|0x[0-9a-f]{6}", path.read_text("utf-8"))


def test_every_notebook_is_run():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NOTEBOOKS


if __name__ == "__main__":
    import tempfile

    for notebook in sys.argv[1:] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as empty:
            nbformat.write(executed(read(notebook), empty, os.environ), FOLDER / f"{notebook}.ipynb")
