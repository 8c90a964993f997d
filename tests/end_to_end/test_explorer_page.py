"""`unidiff app` in a browser: the page opens, a slider is moved, the picture changes, and nothing else is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 600_000  # milliseconds


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("gradio", reason="needs the extra app")
    command = [sys.executable, "-m", "unidiff", "app", "--port", "0", "--no-browser", "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield next(line.split()[0] for line in server.stderr if line.startswith("http://"))
        finally:
            server.terminate()


@pytest.mark.slow  # 6 s: a server, which imports gradio
def test_it_is_served_to_this_machine_alone(address):
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{address}config", timeout=600) as answer:
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
        config = json.load(answer)
    labels = [component["props"].get("label") for component in config["components"] if component["type"] == "tabitem"]
    assert labels == ["Samples", "Noise", "The ring", "Heat"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "evil.example"}), timeout=600)


@pytest.mark.slow  # 5 s: a browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here: chromium or google-chrome")
def test_a_slider_changes_the_picture(address):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address, wait_until="domcontentloaded")
        page.get_by_role("tab", name="Heat", exact=True).click()
        image = page.locator("#heat .picture img").first
        image.wait_for()
        before = image.get_attribute("src")
        slider = page.get_by_role("slider", name="log10 of time t").last
        slider.focus()
        slider.press("ArrowRight")
        page.wait_for_function("old => document.querySelector('#heat .picture img').src !== old", arg=before)
        assert page.locator("#heat .picture p").first.inner_text().startswith("t = 0.00112: ")
        assert not errors
        assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()
        browser.close()
