"""`funcnet report`: the page of a run that is finished, of one that is not, and of a folder that is none."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from importlib.util import find_spec

import numpy as np
import pytest

from funcnet import checkpoints
from funcnet.cli import main, sessions
from funcnet.types import Report

TRAIN = ["train", "--model", "mlp", "--hidden", "16", "--epochs", "2", "--batch-size", "256", "--dropout", "0"]
SECTIONS = [
    "Learning curves", "Confusion matrix", "Mistakes", "Gradient check", "Timing", "Network", "Configuration",
    "Environment", "Checkpoints",
]  # fmt: skip


class Page(HTMLParser):
    """Sections by title, each with its text, the rows of its tables and its images; every tag closed in its order."""

    VOID = {"meta", "img"}

    def __init__(self, path):
        super().__init__()
        self.open, self.titles, self.addresses, self.images = [], [], [], {}
        self.texts, self.rows, self.head = {}, {}, ""
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[key] for key in ("src", "href", "xlink:href", "data") if key in given]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "h2":
            self.titles.append("")
        if tag == "img":
            self.images.setdefault(self.titles[-1], []).append(given)
        if tag == "tr":
            self.rows.setdefault(self.titles[-1], []).append([])
        if tag in ("td", "th"):
            self.rows[self.titles[-1]][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["h2"]:
            self.titles[-1] += data
        elif not self.titles:
            self.head += data * ("main" in self.open)
        else:
            self.texts[self.titles[-1]] = self.texts.get(self.titles[-1], "") + data
            if self.open[-1:] in (["td"], ["th"]):
                self.rows[self.titles[-1]][-1][-1] += data


def funcnet(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "7 & <b>"
    board = ["--tensorboard"] if find_spec("tensorboardX") else []
    assert main([*TRAIN, *board, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def page(folder):
    assert main(["report", str(folder), "--most", "8"]) == 0
    return Page(folder / "report.html")


def test_every_section_is_there_and_none_lacks_anything(page):
    assert page.titles == SECTIONS
    assert 'class="missing"' not in page.text
    assert page.head.startswith("7 & <b>: mlp on digits")  # escaped


def test_the_page_needs_nothing_else(page):
    assert page.addresses
    assert [address[:30] for address in page.addresses if not address.startswith("data:image/svg+xml;base64,")] == []
    assert not re.search(r"<(script|link|iframe|object)|@import|url\(", page.text)
    for images in page.images.values():
        assert all(len(image["alt"]) > 20 for image in images)
    assert {name for name, images in page.images.items() if images} == set(SECTIONS[:4])
    assert "prefers-color-scheme: dark" in page.text
    assert "@media print" in page.text


def test_the_page_says_what_the_run_says(page, folder, capsys):
    *_, metadata = checkpoints.load_weights(folder / "weights.safetensors")
    accuracy, loss = metadata["held_out"]["accuracy"], json.loads((folder / "metrics.jsonl").read_text().split("\n")[1])
    assert f"{accuracy:.2%}accuracy on 359 held-out rows" in page.head
    assert f"{loss['loss']:.4g}training loss" in page.head
    assert "2 of 2epochs" in page.head
    assert page.images["Confusion matrix"][0]["alt"] == (
        f"confusion matrix: {round(accuracy * 359)} of 359 held-out rows on the diagonal"
    )
    assert ["batch_size", "256", "–"] in page.rows["Configuration"]
    assert ["seed", "0", ""] in page.rows["Configuration"]
    assert page.rows["Network"][-1] == ["", "total", "", "", "1,210"]
    assert [row[:2] for row in page.rows["Checkpoints"]] == [["step", "epoch"], ["6", "1"], ["12", "2"]]
    assert dict(page.rows["Environment"])["jax"] == __import__("jax").__version__
    assert page.rows["Timing"][1][1] == "1 to 2"


def test_the_gradient_of_the_network_is_checked(page):
    text = page.texts["Gradient check"]
    assert "the hand-derived gradient agrees, in float64" in text
    leaves = {row[3] for row in page.rows["Gradient check"] if len(row) > 3} - {"leaf", "random directions"}
    assert leaves == {"x", *(f"params/{i}/{leaf}" for i in (0, 2) for leaf in ("bias", "kernel"))}


def test_a_run_that_is_not_finished_gives_what_there_is(folder, tmp_path, capsys):
    stopped, path = tmp_path / "stopped", tmp_path / "page.html"
    shutil.copytree(folder, stopped)
    (stopped / "weights.safetensors").unlink()
    assert funcnet(capsys, "report", stopped, "--most", 0, "--output", path) == (0, f"page: {path}\n", "")
    page = Page(path)
    assert page.titles == SECTIONS
    assert f"This run is not finished: it still runs, or it was stopped. funcnet train --resume {stopped}" in page.head
    assert page.texts["Confusion matrix"].strip() == "This needs the weights, which come at the end of the run."
    assert page.texts["Gradient check"].strip() == "Left out by --most 0."
    assert len(page.images["Learning curves"]) == 1
    assert page.rows["Network"][-1] == ["", "total", "", "", "1,210"]  # as its checkpoints tell
    for name in ("metrics.csv", "sessions.jsonl"):
        (stopped / name).unlink()
    shutil.rmtree(stopped / "checkpoints")
    assert funcnet(capsys, "report", stopped, "--most", 0, "--output", path)[0] == 0
    page = Page(path)
    missing = {title: page.texts[title].strip() for title in SECTIONS if title not in page.rows}
    assert missing == {
        "Learning curves": "No epoch is written down in metrics.csv yet.",
        "Confusion matrix": "This needs the weights, which come at the end of the run.",
        "Mistakes": "This needs the weights, which come at the end of the run.",
        "Gradient check": "Left out by --most 0.",
        "Timing": "sessions.jsonl was not found; train writes there how long it takes.",
        "Environment": "Neither sessions.jsonl nor a checkpoint was found.",
        "Checkpoints": "No checkpoint was found.",
    }
    assert page.rows["Network"][-1] == ["", "total", "", "", "1,210"]  # as the data tell


def test_rows_that_are_no_images_are_listed_and_lost_data_are_named(tmp_path, capsys):
    rng, file, run = np.random.default_rng(0), tmp_path / "data.npz", tmp_path / "run"
    np.savez(file, x=rng.random((60, 4)), target=np.arange(60) % 3)
    options = ["--data", file, "--model", "linear", "--epochs", 1, "--output", run]
    assert funcnet(capsys, "train", *options)[0] == 0
    assert funcnet(capsys, "report", run, "--most", 0)[0] == 0
    page = Page(run / "report.html")
    head, *rows = page.rows["Mistakes"]
    assert head == ["row", "true", "predicted", "probability"]
    sure = [float(row[3].rstrip("%")) for row in rows]
    assert sure == sorted(sure, reverse=True)
    assert all(row[1] != row[2] for row in rows)
    file.unlink()
    assert funcnet(capsys, "report", run, "--most", 0)[0] == 0
    page = Page(run / "report.html")
    assert f"{file}: expected digits, mnist, fashion_mnist, cifar10, cifar100, a .csv" in page.texts["Mistakes"]
    assert page.rows["Network"][-1][-1] == "15"


def test_what_is_no_run_and_what_cannot_be_written(folder, tmp_path, capsys):
    code, _, error = funcnet(capsys, "report", tmp_path)
    assert (code, error) == (
        5, f"funcnet: {tmp_path}: expected a folder that funcnet train wrote, with config.toml in it.\n"
    )  # fmt: skip
    code, _, error = funcnet(capsys, "report", folder, "--most", 0, "--output", tmp_path / "no" / "page.html")
    assert (code, error) == (
        2, f"funcnet: --output {tmp_path}/no/page.html: expected a folder that exists; make {tmp_path}/no first.\n"
    )  # fmt: skip
    code, _, error = funcnet(capsys, "report", folder, "--most", 0, "--output", tmp_path)
    assert code == 2
    assert error.startswith(f"funcnet: --output {tmp_path}: expected a file, got a folder; add a name")


def test_the_metrics_are_there_in_three_forms(folder):
    with (folder / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == rows
    assert [row["step"] for row in rows] == [6, 12]
    if find_spec("tensorboardX"):
        assert len(list((folder / "tensorboard").iterdir())) == 1


# Sessions


def test_sessions_are_told_apart_and_half_a_line_is_none(tmp_path):
    path = tmp_path / "sessions.jsonl"
    reports = [Report(1, 10, {}, None), Report(2, 20, {}, None), Report(3, 30, {}, None)]  # type: ignore[arg-type]
    assert list(sessions.timed(reports, path, 0.0)) == reports
    with path.open("a") as file:
        file.write('{"epoch": 4, "st')  # killed
    list(sessions.timed(reports[2:], path, 0.0))
    (first, second), problems = sessions.read_sessions(path)
    assert problems == ["line 6 is cut or damaged"]
    assert [report[:2] for report in first.reports] == [(1, 10), (2, 20), (3, 30)]
    assert [report[:2] for report in second.reports] == [(3, 30)]
    assert second.steps_per_second is None
    assert {"jax", "python", "device", "commit", "started"} <= set(second.environment)
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        for place in range(0, len(line), 3):
            if number == 2 and 0 <= place - line.index(b"crc32") < 5:
                continue  # the first line of a run without its checksum is one of an older run
            changed = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
            path.write_bytes(b"\n".join([*lines[: number - 1], changed, *lines[number:]]))
            assert f"line {number} is cut or damaged" in sessions.read_sessions(path)[1]
    timed = sessions.Session({}, [(1, 10, 5.0), (2, 20, 6.0), (3, 30, 6.5), (4, 40, 8.5)])
    assert (timed.first, timed.steps_per_second) == (5.0, 10.0)  # of 10, 20 and 5 steps a second


def test_a_line_of_the_sessions_that_is_missing_or_moved_is_seen(tmp_path):
    """Not the last one, which no later line names."""
    path = tmp_path / "sessions.jsonl"
    for _ in range(2):
        list(sessions.timed([Report(i, 10 * i, {}, None) for i in (1, 2, 3)], path, 0.0))  # type: ignore[arg-type]
    lines = [line for line in path.read_text().splitlines() if line]
    whole = sessions.read_sessions(path)[0]
    assert len(lines) == 8
    for number in range(1, 8):
        path.write_text("\n".join(lines[: number - 1] + lines[number:]) + "\n")
        assert sessions.read_sessions(path)[1] == [f"lines are missing before line {number}"]
        list(sessions.timed([], path, 0.0))  # what is written after it does not hide it
        assert sessions.read_sessions(path)[1] == [f"lines are missing before line {number}"]
        swapped = [*lines[: number - 1], lines[number], lines[number - 1], *lines[number + 1 :]]
        path.write_text("\n".join(swapped) + "\n")
        assert f"lines are missing before line {number}" in sessions.read_sessions(path)[1]
    # An older funcnet wrote no such numbers, and its lines may be followed by those of today.
    old = [json.loads(line) for line in lines]
    rows = [{name: value for name, value in row.items() if name not in ("after", "crc32")} for row in old]
    path.write_text("".join(json.dumps({**row, "crc32": sessions._crc32(row)}) + "\n" for row in rows))
    assert sessions.read_sessions(path) == (whole, [])
    list(sessions.timed([], path, 0.0))
    assert sessions.read_sessions(path)[1] == []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    list(sessions.timed([], path, 0.0))
    assert (len(sessions.read_sessions(path)[0]), sessions.read_sessions(path)[1]) == (3, [])


# In a browser, where there is one


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(page, folder, scheme):
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        shown = browser.new_context(
            color_scheme=scheme, offline=True, viewport={"width": 700, "height": 900}
        ).new_page()
        said = []
        shown.on("console", lambda message: said.append(message.text))
        shown.on("request", lambda request: said.append(request.url))
        shown.goto((folder / "report.html").as_uri())
        asked = [word for word in said if not word.startswith(("data:", "file:"))]
        loaded = shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        width = shown.evaluate("document.documentElement.scrollWidth")
        ground = shown.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor")
        browser.close()
    assert (asked, loaded, width) == ([], True, 700)
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
