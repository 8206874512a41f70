"""The outputs of cells in a terminal, while papermill runs them."""

import logging

import nbformat
import papermill

from era_support_packages.notebook.terminal import printed

SHOWN = """
from IPython.display import display
print("printed")
print("a warning", file=__import__("sys").stderr)
display({"text/html": "<b>shown</b>", "text/plain": "shown"}, raw=True)
display({"text/plain": ""}, raw=True)
"""


def test_prints_tables_and_sentences_appear_in_their_order(tmp_path, capsys):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOWN)], metadata={"kernelspec": kernel})
    path = tmp_path / "shown.ipynb"
    nbformat.write(content, path)
    logger = logging.getLogger("papermill")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with printed():
        papermill.execute_notebook(str(path), str(path), progress_bar=False, log_output=True, kernel_name="python3")
    assert capsys.readouterr().out == "printed\nshown\n"
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
