"""A contrastive encoder of captioned digits: retrieval, zero-shot classification, and a picture of similarities.

Of each image the most similar of all 300 captions, four fifths of them those of training. The probability of a digit is
proportional to the sum of exp(f) over the captions that have it, f being log p(u, y) / (p(u) p(y)), and so for ink and
ground; the digit, ink or ground of largest probability is compared with the truth.

    python benchmarks/contrastive.py runs/contrastive_digits --figure contrastive.png
"""

from __future__ import annotations

import argparse

import torch
from caption_judge import all_captions, attributes, text
from torch import Tensor

import unidiff as ud
from unidiff import plot

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run")
parser.add_argument("--count", type=int, default=1000, help="images of each split")
parser.add_argument("--figure", default="contrastive.png", help="held-out captions beside their most similar images")
options = parser.parse_args()

model = ud.load_contrastive(options.run, device="cpu")
process, data, captions = model.process, ud.data.CaptionedDigits(), all_captions()
kinds = attributes(captions)


@torch.no_grad()
def similarities(x: Tensor, t: float, captions: Tensor) -> Tensor:
    """F of noisy images with captions, (B, N)."""
    level, noise = process.level(t), torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    u = process.perturb(process.basis.forward(x), noise, level)
    return model.scale * model.images(u, level) @ model.texts(caption=captions).T


print(f"s = {float(model.scale):.1f}; {len(captions)} captions")
print("split  t       caption  caption of the split  image of a caption   digit     ink  ground")
for split in ("train", "test"):
    source = data.open(split)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[: options.count]
    x, own = source.examples(order)
    assert own is not None
    different, number = own.unique(dim=0, return_inverse=True)
    for t in (process.t_min, 0.25, 0.5, 0.75):
        f, among = similarities(x, t, captions), similarities(x, t, different)
        first = (captions[f.argmax(1)] == own).all(1)
        ways = [first, among.argmax(1) == number, number[among.argmax(0)] == torch.arange(len(different))]
        for place, count in enumerate((10, 6, 6)):
            parts = [f.masked_fill(kinds[:, place] != value, -torch.inf).logsumexp(1) for value in range(count)]
            ways.append(torch.stack(parts, 1).argmax(1) == attributes(own)[:, place])
        print(f"{split:5s}  {t:<6g}" + "".join(f"{way.double().mean():10.1%}" for way in ways), flush=True)

# Without copies: each held-out digit once.
source = ud.data.CaptionedDigits(copies=1).open("test")
x, own = source.examples(torch.arange(len(source)))
assert own is not None
different = own.unique(dim=0)
asked = different[torch.randperm(len(different), generator=torch.Generator().manual_seed(0))[:6]]
f = similarities(x, process.t_min, asked)
nearest = f.topk(5, dim=0).indices.T
right = (own[nearest] == asked[:, None]).all(2)
print(f"of the five most similar of {len(x)} images to six captions, {right.double().mean():.0%} have the caption")
cells = [[(x[k : k + 1], "") for k in row] for row in nearest.tolist()]
places = ["1st", "2nd", "3rd", "4th", "5th"]
caption = f"The most similar of {len(x)} held-out images to six held-out captions."
plot.save_table(cells, [text(one) for one in asked], places, options.figure, caption)
