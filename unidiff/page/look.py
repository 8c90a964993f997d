"""How a page looks, dark and light, wide and narrow, and the few lines that move it."""

from __future__ import annotations

__all__ = ["SCRIPT", "STYLE"]

STYLE = """
:root {
  --paper: #fff; --ink: #1b1f24; --faint: #59636e; --rule: #d1d9e0; --box: #f6f8fa; --link: #0550ae;
  --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df;
  --c4: #bf3989; --c5: #7d6600; --c6: #0e7490; --c7: #6e7781;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --rule: #3d444d; --box: #151b23; --link: #6cb6ff;
    --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff;
    --c4: #f778ba; --c5: #d29922; --c6: #39c5cf; --c7: #9198a1;
  }
}
* { box-sizing: border-box }
body {
  margin: 0 auto; padding: 1rem; max-width: 80ch; overflow-wrap: anywhere;
  background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
}
body:has(.several) { max-width: 160ch }
a { color: var(--link) }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.5rem 0 }
h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; border-top: 1px solid var(--rule); padding-top: 1rem }
h3, h4 { font-size: 1rem; margin: 1rem 0 0.25rem }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; list-style: none; margin: 0.5rem 0; padding: 0 }
.runs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 2rem }
.runs > * { min-width: 0 }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: 0.15rem 1rem; margin: 0.5rem 0 }
dt, p.note, figcaption, caption { color: var(--faint) }
dd { margin: 0; min-width: 0 }
p.note, figcaption { font-size: 0.875rem; margin: 0.25rem 0 }
.wide { overflow-x: auto; margin: 0.5rem 0 }
table { border-collapse: collapse; font-size: 0.875rem; overflow-wrap: normal }
th, td, caption { text-align: left; vertical-align: top }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid var(--rule) }
thead th { vertical-align: bottom; min-width: 5em }
tbody th { white-space: nowrap }
td { font-variant-numeric: tabular-nums; white-space: nowrap }
code, pre { font-family: ui-monospace, monospace; overflow-wrap: normal }
pre {
  background: var(--box); padding: 0.6rem; overflow: auto; max-height: 24rem;
  font-size: 0.8125rem; line-height: 1.4;
}
figure { margin: 0.5rem 0 }
img, svg { max-width: 100%; height: auto }
svg { display: block; width: 100%; color: var(--ink); background: var(--box) }
svg text { fill: currentColor; font: 13px system-ui, sans-serif }
svg .grid { stroke: var(--rule) }
svg .curve { fill: none; stroke-width: 1.6 }
.key { display: inline-block; width: 1.2em; border-top: 3px solid; margin-right: 0.3em; vertical-align: middle }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(56px, 1fr)); gap: 3px }
.tiles { list-style: none; margin: 0.5rem 0; padding: 0 }
.tiles button { display: block; width: 100%; padding: 0; border: 0; background: none; cursor: zoom-in }
.tiles button:focus-visible { outline: 3px solid var(--link); outline-offset: 1px }
.tiles img { display: block; width: 100% }
.tiles img, .path img, .pairs img, dialog img { image-rendering: pixelated }
.path img { display: block }
.path img[hidden] { display: none }
.path input { width: min(100%, 24rem) }
.path output { display: block; font-variant-numeric: tabular-nums }
.pairs { display: flex; flex-wrap: wrap; gap: 0.5rem }
.pairs figure { margin: 0; width: 134px }
.pairs div { display: flex; gap: 4px }
.pairs img { width: 64px }
dialog { border: 1px solid var(--rule); background: var(--paper); color: var(--ink); max-width: min(90vw, 40rem) }
dialog::backdrop { background: rgb(0 0 0 / 60%) }
dialog img { width: min(80vw, 30rem) }
dialog p { margin: 0.5rem 0 }
@media (max-width: 32rem) { svg text { font-size: 20px } }
@media print { dialog, .path input { display: none } }
"""

SCRIPT = """
const box = document.getElementById('large');
const show = button => {
  const small = button.querySelector('img'), large = box.querySelector('img');
  large.src = small.src; large.alt = small.alt; box.querySelector('p').textContent = small.alt; box.showModal();
};
for (const button of document.querySelectorAll('.tiles button')) button.addEventListener('click', () => show(button));
for (const path of document.querySelectorAll('.path')) {
  const images = path.querySelectorAll('img'), slider = path.querySelector('input');
  const move = () => {
    images.forEach((image, number) => { image.hidden = number !== Number(slider.value); });
    path.querySelector('output').textContent = images[slider.value].alt;
  };
  slider.addEventListener('input', move); move();
}
"""
