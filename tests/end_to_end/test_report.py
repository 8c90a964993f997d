"""`unidiff report`: a page at the end of a run and by command; its numbers are the JSON inside; in a browser."""

from __future__ import annotations

import functools
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from page_reader import PageReader
from tiny import RING, refused, unidiff, write

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.run.directory import RunDirectory
from unidiff.run.page import lost_measurements, write_run_page
from unidiff.run.shipped import SHIPPED, locate

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_a_shipped_run_and_two_side_by_side(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = unidiff("report", "shipped:ddpm_digits", "--json")
    assert result.code == 0, result
    assert json.loads(result.out) == {"runs": ["shipped:ddpm_digits"], "file": "report-ddpm_digits.html"}
    one = PageReader(tmp_path / "report-ddpm_digits.html")
    one.check()
    assert one.sections == ["training", "loss", "samples", "recipe", "how-to-repeat", "environment"]
    (run,) = one.content["runs"]
    assert run["digest"] == SHIPPED["ddpm_digits"]
    assert run["samples"]["seeds"] == list(range(64))
    assert [image["alt"] for image in one.images] == [f"sample with seed {seed}" for seed in range(64)]
    assert ("runs/0/manifest/parameters", "634273", "634,273") in one.numbers
    path = ud.report("shipped:ddpm_digits", "shipped:heat_digits", out="both.html")
    both = PageReader(path)
    both.check()
    assert [run["name"] for run in both.content["runs"]] == ["ddpm_digits", "heat_digits"]
    assert len(both.images) == 128


def test_the_command_reads_files_alone_and_escapes_names(tmp_path):
    run = tmp_path / "<b>&x"  # as a stranger would call it
    shutil.copytree(locate("shipped:ddpm_digits"), run)
    (run / "checkpoints/step-00001000/ema.safetensors").unlink()
    assert unidiff("report", run).code == 0
    page = run / "report.html"
    found = PageReader(page)
    found.check()
    assert found.content["runs"][0]["name"] == run.name
    assert html.escape(run.name) in page.read_text()
    assert run.name not in re.sub("<script.*?</script>", "", page.read_text(), flags=re.S)
    recipe = run / "recipe.yaml"
    assert "not a report" in refused("report", run, "--out", recipe)
    assert "named once" in refused("report", run, run)
    assert "named once" in refused("report", "shipped:ddpm_digits", locate("shipped:ddpm_digits"))
    assert "not a run directory" in refused("report", tmp_path)
    message = refused("report", tmp_path / "nosuch")  # the run is what is missing, and no --out was given
    assert "nosuch: not a run directory" in message
    assert "--out nosuch" not in message
    with pytest.raises(ParameterError, match="runs must be at least one run"):
        ud.report()


def test_measurements_of_the_same_weights_are_not_lost(tmp_path):
    shutil.copytree(locate("shipped:ddpm_digits"), run := tmp_path / "run")
    page, said = ud.report(run), []
    plain = page.read_text("utf-8")
    full = plain.replace('"digest": "sha256', '"likelihood": {}, "neighbours": {}, "digest": "sha256', 1)
    page.write_text(full, "utf-8")
    message = refused("report", run)
    assert "measurements of these weights that take minutes (neighbours, likelihood). Add --full" in message
    write_run_page(RunDirectory(run), {}, said.append)  # at the end of a run that is resumed
    assert said == [f"{page} is kept: it has measurements of these weights, made with --full."]
    assert page.read_text("utf-8") == full
    assert ud.report(run, overwrite=True).read_text("utf-8") == plain
    page.write_text(full.replace('"digest": "sha256:', '"digest": "sha256:0', 1), "utf-8")  # of other weights
    assert ud.report(run).read_text("utf-8") == plain
    page.write_text(full[: len(full) // 2], "utf-8")  # damaged
    assert lost_measurements(page, []) == []


@pytest.mark.slow  # 1 s: an evaluation
def test_results_of_these_weights_are_found_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unidiff.plot.save_table", lambda *arguments: None)
    words = ["shipped:heat_digits", "--nfe", 2, "--count", 20]
    assert unidiff("evaluate", *words).code == 0
    found = PageReader(ud.report("shipped:heat_digits"))
    found.check()
    assert "evaluation" in found.sections
    summary = tmp_path / "runs/evaluate-heat_digits/evaluate.json"
    content = json.loads(summary.read_text())
    own = found.content["runs"][0]["evaluation"]
    assert own == {name: content[name] for name in own}
    measures = {path: value for path, value, _ in found.numbers if "evaluation" in path}
    assert measures["runs/0/evaluation/rows/0/measures/frechet/value"] == repr(
        content["rows"][0]["measures"]["frechet"]["value"]
    )
    content["rows"][0]["digest"] = "sha256:0"  # of other weights
    summary.write_text(json.dumps(content))
    assert "evaluation" not in PageReader(ud.report("shipped:heat_digits", overwrite=True)).sections
    content["rows"][0] = {"digest": SHIPPED["heat_digits"]}
    summary.write_text(json.dumps(content))
    assert "evaluate.json: the file is damaged" in refused("report", "shipped:heat_digits")


def test_hostile_files_end_in_a_page_or_in_one_message(tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert unidiff("run", write(tmp_path, RING), "--set", "training.report=false", "--out", run).code == 0
    assert not (run / "report.html").exists()
    notices: list[str] = []
    with monkeypatch.context() as patch:  # a page that cannot be written is a notice
        patch.setattr("unidiff.run.page.write_page", lambda path, text: (run / "nowhere/x").write_text(text))
        write_run_page(RunDirectory(run), RING, notices.append)
    assert "The report was not written" in notices[0]
    (run / "report.html").write_text("the user's own")
    write_run_page(RunDirectory(run), RING, notices.append)
    assert "report.html: the file that is there is not a report of unidiff" in notices[1]
    assert (run / "report.html").read_text() == "the user's own"
    (run / "report.html").unlink()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1e20, "lr": 1, "seconds": 1}\n')
    manifest, recipe = run / "manifest.json", run / "recipe.yaml"
    entries = json.loads(manifest.read_text())
    strange = {"nfe": float("nan"), "times": ["<b>"], "libraries": {"<i>": 3}, "loss": "<script>", "unidiff": [1]}
    manifest.write_text(json.dumps({**entries, **strange}))
    (run / "samples/grid.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")
    os.symlink("/etc/hostname", run / "samples/other.png")
    assert unidiff("report", run).code == 0
    page = PageReader(run / "report.html")
    page.check()
    assert "<script>" not in re.sub(r"<script>\nconst box.*", "", (run / "report.html").read_text(), flags=re.S)
    for text in ("[]", "sampling: [", "data: {type: Ring}\nsampling: 3\ntraining: {steps: <b>}\n"):
        recipe.write_text(text)
        assert unidiff("report", run).code == (0 if "Ring" in text else 2)
    recipe.write_text("data: {type: Ring}\n")
    manifest.write_text('{"data": 3}')
    assert "damaged" in refused("report", run)


def test_full_of_a_run_that_generates_nothing_is_a_notice_and_a_page(tmp_path):
    before = Path(__file__).parents[1] / "data/before/runs"
    result = unidiff("report", before / "classifier", "--full", "--out", tmp_path / "page.html")
    assert result.code == 0, result
    assert "it does not generate samples" in result.err
    found = PageReader(tmp_path / "page.html")
    found.check()
    assert "Left out: all that --full measures: " in (tmp_path / "page.html").read_text()
    shutil.copytree(before / "heat", run := tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    with pytest.MonkeyPatch.context() as patch:  # a run that cannot be loaded is found before another is measured
        patch.setattr("unidiff.tasks.report.measured", lambda *arguments, **options: pytest.fail("it is measured"))
        message = refused("report", before / "generation", run, "--full", "--out", tmp_path / "two.html")
    assert "no checkpoint" in message
    assert not (tmp_path / "two.html").exists()


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The page of a run of images, drawn in few steps, with all sections."""
    run = tmp_path_factory.mktemp("full") / "run"
    shutil.copytree(locate("shipped:ddpm_digits"), run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["sampling"] |= {"solver": "DDIM", "grid": {"type": "Uniform", "steps": 4}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unidiff.tasks.comparison_models._MOST_STEPS", 4)
        patch.setattr("unidiff.tasks.report_measures._NFE", (2, 4))
        patch.setattr("unidiff.tasks.report_measures.RUN_SOLVERS", ("ddim", "ancestral"))
        patch.setattr("unidiff.tasks.report_measures._LIKELIHOODS", 2)
        rough = functools.partial(ud.log_likelihood, rtol=0.3, atol=0.3)
        patch.setattr("unidiff.tasks.evaluation_bits.log_likelihood", rough)
        for name in ("save_table", "save_curves"):  # figures beside the numbers, which a page does not show
            patch.setattr(f"unidiff.plot.{name}", lambda *arguments: None)
        return ud.report(run, out=run.parent / "full.html", full=True, count=20, device="cpu")


@pytest.mark.slow  # 4 s: samples, an evaluation, a comparison and likelihoods
def test_everything_is_measured(full):
    found = PageReader(full)
    found.check()
    assert found.sections == [
        *("training", "loss", "samples", "from-noise-to-data", "evaluation", "solvers"),
        *("nearest-training-samples", "likelihood", "recipe", "how-to-repeat", "environment"),
    ]
    (run,) = found.content["runs"]
    assert run["notes"] == []
    bound = run["likelihood"]["bound"]
    assert bound["decoder"] + bound["steps"] + bound["prior"] == pytest.approx(-bound["nats"]["value"], rel=1e-12)
    loaded = ud.load(full.parent / "run", device="cpu")
    samples = loaded.sample(ud.Sampling(ud.DDIM(), ud.Uniform(4), count=1)).x
    train = ud.data.Digits().open()
    row = run["neighbours"]["pairs"][0]["row"]
    distances = (train.batch(torch.arange(len(train))) - samples.clamp(-1, 1)).flatten(1).norm(dim=1)
    assert int(distances.argmin()) == row


@pytest.mark.slow  # 3 s: a browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here: chromium or google-chrome")
def test_it_is_clicked_through_in_a_browser(full, tmp_path):
    clicks = """<script>{
    const found = { errors: [] };
    addEventListener('error', event => found.errors.push(String(event.message)));
    const tiles = document.querySelectorAll('.tiles button'), box = document.querySelector('dialog');
    tiles[2].click();
    found.open = box.open; found.large = box.querySelector('img').src === tiles[2].querySelector('img').src;
    found.seed = box.querySelector('p').textContent;
    box.querySelector('button').click(); found.closed = !box.open;
    const path = document.querySelector('.path'), slider = path.querySelector('input');
    const shown = () => [...path.querySelectorAll('img')].map(image => !image.hidden);
    found.last = shown();
    slider.value = 0; slider.dispatchEvent(new Event('input'));
    found.first = shown(); found.word = path.querySelector('output').textContent;
    found.links = [...document.querySelectorAll('nav a')].every(link => document.querySelector(link.hash));
    found.wide = document.documentElement.scrollWidth <= innerWidth;
    found.width = innerWidth;
    found.broken = [...document.images].filter(image => image.src && !image.naturalWidth).length;
    found.paper = getComputedStyle(document.body).backgroundColor;
    const out = document.createElement('pre'); out.id = 'found'; out.textContent = JSON.stringify(found);
    document.body.append(out);
    }</script></body>"""
    copy = tmp_path / "copy.html"
    copy.write_text(full.read_text("utf-8").replace("</body>", clicks))
    # A window of a phone, which Chromium makes no narrower than 500 pixels, and one of 80 characters.
    for scheme, width, paper in ((0, 500, "rgb(13, 17, 23)"), (1, 800, "rgb(255, 255, 255)")):
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command += [f"--window-size={width},900", f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom"]
        out = subprocess.run([*command, copy.as_uri()], capture_output=True, text=True, timeout=600, check=True).stdout
        found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', out)[1]))
        assert found == {
            "errors": [],
            **dict.fromkeys(("open", "large", "closed", "links", "wide"), True),
            "seed": "sample with seed 2",
            "last": [False] * 4 + [True],
            "first": [True] + [False] * 4,
            "word": "state 1 of 5, time 1.000",
            "width": width,
            "broken": 0,
            "paper": paper,
        }
