r"""
Your own images
===============

A folder of images is enough. Its subfolders, if there are any, are the classes. This page makes such a folder, of
discs and of frames, so that it can be run anywhere; put the path of yours in its place.
"""

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image, ImageDraw

import unidiff as ud

plt.style.use("tableau-colorblind10")
folder = Path(tempfile.mkdtemp()) / "shapes"
chance = torch.Generator().manual_seed(0)
for number in range(400):
    kind = ("disc", "frame")[number % 2]
    left, top, size = (int(torch.randint(*ends, (1,), generator=chance)) for ends in ((0, 10), (0, 10), (16, 22)))
    image = Image.new("RGB", (32, 32), "white")
    box, draw = (left, top, left + size, top + size), ImageDraw.Draw(image)
    if kind == "disc":
        draw.ellipse(box, fill=(200, 60, 30))
    else:
        draw.rectangle(box, outline=(20, 90, 180), width=5)
    (folder / kind).mkdir(parents=True, exist_ok=True)
    image.save(folder / kind / f"{number:03}.png")

# %%
# ``ImageFolder`` shrinks the short side to ``size`` and cuts out the centre. Every tenth file is kept for testing.
data = ud.data.ImageFolder(folder, size=8).open()
print(f"{data.name}: {len(data)} images of shape {data.shape}, classes {', '.join(data.class_names)}")


def show(images: torch.Tensor, title: str) -> None:
    """A row of images, (B, 3, H, W) in [-1, 1]."""
    _, axis = plt.subplots(figsize=(7, 1.2), layout="constrained")
    axis.imshow(torch.cat(list(images.clamp(-1, 1) / 2 + 0.5), 2).permute(1, 2, 0), interpolation="nearest")
    axis.set(title=title, xticks=[], yticks=[])


show(data.batch(torch.arange(0, 360, 36)), "ten of the images")

# %%
# Train a small network, conditioned on the class; one label in ten is dropped, so that the model is unconditional too.
network = ud.UNet(data.shape, width=20, multipliers=(1, 2), blocks=1, classes=2)
model = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), network)
settings = ud.Training(steps=100, batch=32, lr=4e-3, warmup=10, ema=0.95)
model = ud.train(model, data, ud.Denoising(), settings, conditioning=ud.Labels(dropout=0.1))

# %%
# A few seconds of training give the idea of a disc and of a frame. For legible images of photographs count hours.
label = torch.tensor([0] * 5 + [1] * 5)
show(ud.sample(ud.ClassifierFree(model, 2.0), grid=ud.Tapered(15), seeds=10, label=label).x, "five discs, five frames")

# %%
# The same as a run, which can be stopped, resumed and sampled from the command line, is a recipe of some lines::
#
#     data:             {type: ImageFolder, root: shapes, size: 8}
#     process:          {type: VPSDE}
#     parameterization: {type: V}
#     backbone:         {type: UNet, width: 64, multipliers: [1, 2], classes: 2, groups: 8}
#     conditioning:     {type: Labels, dropout: 0.1}
#     training:         {steps: 5000, batch: 32, lr: 1.0e-3}
#
# **Now you can** train on a folder of images, with their classes, and draw what you ask for.
