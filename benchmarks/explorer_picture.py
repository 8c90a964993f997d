"""Opens `unidiff app` in headless Chromium, moves a slider, and writes the picture of docs/explorer.md.

Needs `pip install playwright`, the extra `app`, and a Chromium: python benchmarks/explorer_picture.py [FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

TABS = ("Samples", "Noise", "The ring", "Heat")
PATIENCE = 300_000  # milliseconds
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/images"))
    parser.add_argument("--address", help="of a page that is served already")
    parser.add_argument("--width", type=int, default=1180, help="of the window")
    parser.add_argument("--all", action="store_true", help="a picture of each tab, explorer_TAB_WIDTH.png")
    parser.add_argument("--tab", choices=TABS, action="append", help="a tab to open [default: all]; repeatable")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    server = None
    address = options.address
    if address is None:
        command = [sys.executable, "-m", "unidiff", "app", "--port", "0", "--no-browser"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        address = next(line.split()[0] for line in server.stderr if line.startswith("http://"))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": options.width, "height": 760}, color_scheme="light")
            page.set_default_timeout(PATIENCE)
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address, wait_until="domcontentloaded")
            for name in options.tab or TABS:
                page.get_by_role("tab", name=name, exact=True).click()
                panel = page.get_by_role("tabpanel").filter(visible=True)
                image = panel.locator(".picture img").first
                image.wait_for()
                before = image.get_attribute("src")
                slider = panel.locator("input[type=range]").first
                slider.focus()
                slider.press("ArrowRight")
                page.wait_for_function("([old]) => [...document.images].every(i => i.src !== old)", arg=[before])
                page.wait_for_timeout(500)
                wide = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                print(f"{name}: the picture changed; as wide as the window: {wide}", flush=True)
                if options.all:
                    page.screenshot(
                        path=options.folder / f"explorer_{name.lower().replace(' ', '_')}_{options.width}.png"
                    )
                elif name == "The ring":
                    page.screenshot(path=options.folder / "explorer.png")
            others = {url for url in asked if not url.startswith((address, "data:", "blob:"))}
            print(f"{len(asked)} requests, to others: {sorted(others) or 'none'}")
            browser.close()
    finally:
        if server is not None:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
