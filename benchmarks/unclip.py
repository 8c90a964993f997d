"""unCLIP in small: a prior of image embeddings told the caption, and a decoder told the embedding.

The embeddings are those of a run of contrastive_digits. The prior is a diffusion of them by an MLP with the caption;
beside it stands the text embedding itself, which needs no prior. The decoder is a diffusion of images by an MLP with
the embedding. The judge is that of caption_judge.py. Variations of an image are samples of the decoder with the image's
own embedding; a text difference moves that embedding along the difference of two text embeddings.

    python benchmarks/unclip.py runs/contrastive_digits --out unclip
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from caption_judge import DIGIT, GROUND, HEAD, INK, Judge, text
from kept_model import trained
from rows import machine
from torch import Tensor

import unidiff as ud
from unidiff import plot
from unidiff.conditioning.base import Conditioning
from unidiff.data.captioned import CaptionedDigits, CaptionedSource

SIZE = 32  # of an embedding
SOLVER, GRID = ud.ExponentialAdams(), ud.Tapered(25)


@dataclass(frozen=True)
class Given(Conditioning):
    """The embedding of each image, which its source has in place of a caption."""

    dropout: float = 0.1

    names = ("embedding",)

    def conditions(self, x0: Tensor, label: Tensor | None, uniform: Tensor) -> dict[str, Tensor]:
        assert label is not None
        return {"embedding": label.masked_fill(uniform[:, :1] < self.dropout, 0.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", help="a run of contrastive_digits")
    parser.add_argument("--out", type=Path, default=Path("unclip"), help="folder of the figures")
    parser.add_argument("--count", type=int, default=200, help="captions of each split")
    parser.add_argument("--steps", type=int, nargs=2, default=[3000, 4000], help="of training, prior and decoder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    print(machine())
    encoder, data = ud.load_contrastive(options.encoder, device="cpu"), CaptionedDigits(copies=16)
    (caption_words,) = encoder.conditions
    source, judge = data.open(), Judge()
    x, captions = source.examples(torch.arange(len(source)))
    assert captions is not None

    @torch.no_grad()
    def embed(x: Tensor) -> Tensor:
        """The embeddings of images, scaled to unit variance of their elements."""
        process = encoder.process
        return encoder.images(process.basis.forward(x), process.level(process.t_min)) * SIZE**0.5

    @torch.no_grad()
    def embed_text(captions: Tensor) -> Tensor:
        """Those of captions."""
        return encoder.texts(caption=captions) * SIZE**0.5

    vectors = torch.cat([embed(part) for part in x.split(1000)])
    embeddings = CaptionedSource(vectors, captions, "embeddings", "of the encoder")
    network = ud.MLP((SIZE,), width=128, depth=3, conditions=(caption_words,))
    prior = trained(network, embeddings, ud.Captions(0.1), options.steps[0], options.out / "prior.safetensors")
    network = ud.MLP(data.shape, width=256, depth=4, conditions=(ud.Embedding((SIZE,)),))
    images = CaptionedSource(x, vectors, "images", "and their embeddings")
    decoder = trained(network, images, Given(), options.steps[1], options.out / "decoder.safetensors")

    def decode(embedding: Tensor, scale: float = 2.0, seed: int = 0) -> Tensor:
        guided = ud.ClassifierFree(decoder, scale)
        seeds = range(seed, seed + len(embedding))
        return ud.sample(guided, SOLVER, GRID, seeds=seeds, embedding=embedding).x

    def cascade(captions: Tensor, of_prior: float, of_decoder: float) -> Tensor:
        stages = [
            ud.Stage(ud.ClassifierFree(prior, of_prior), SOLVER, GRID),
            ud.Stage(ud.ClassifierFree(decoder, of_decoder), SOLVER, GRID, ud.Identity("embedding")),
        ]
        return ud.Cascade(stages).sample(len(captions), caption=captions).x

    print(HEAD)
    drawn = {}
    for split in ("train", "test"):
        opened = CaptionedDigits().open(split)
        order = torch.randperm(len(opened), generator=torch.Generator().manual_seed(0))[: options.count]
        truth, captions = opened.examples(order)
        assert captions is not None
        judge.line(f"{split}, decoder of true embeddings", decode(embed(truth)), captions)
        drawn["no prior"] = decode(embed_text(captions))
        judge.line(f"{split}, text embedding, no prior", drawn["no prior"], captions)
        for scale in (1.0, 2.0, 4.0):
            drawn[f"prior at {scale:g}"] = cascade(captions, scale, 2.0)
            judge.line(f"{split}, prior at {scale:g}, decoder at 2", drawn[f"prior at {scale:g}"], captions)
    words = [text(one) for one in captions[:10]]
    cells = [[(x[i : i + 1], "") for i in range(10)] for x in drawn.values()]
    note = "Held-out captions: the decoder with the text embedding, and with samples of the prior."
    plot.save_table(cells, [*drawn], words, options.out / "unclip.png", note)

    # Variations of held-out images, and a text difference: the ink, then the digit, becomes another.
    opened = CaptionedDigits(copies=1).open("test")
    x, captions = opened.examples(torch.randperm(len(opened), generator=torch.Generator().manual_seed(5))[:200])
    assert captions is not None
    own, moves = embed(x), {}
    judge.line("variations of held-out images", decode(own), captions)
    vocabulary, rows = CaptionedDigits.words, [[(x[i : i + 1], "")] for i in range(5)]
    for place, first, count in ((INK, vocabulary.index("red"), 6), (DIGIT, vocabulary.index("zero"), 10)):
        other = captions.clone()
        other[:, place] = first + (captions[:, place] - first + 1) % count
        clash = other[:, INK] == other[:, GROUND]  # such an image would show nothing
        other[:, INK] = torch.where(clash, first + (captions[:, INK] - first + 2) % count, other[:, INK])
        moved = own + embed_text(other) - embed_text(captions)
        moved = torch.nn.functional.normalize(moved, dim=1) * SIZE**0.5
        moves[place] = decode(moved)
        judge.line("text difference, another " + ("ink" if place == INK else "digit"), moves[place], other)
    for i, row in enumerate(rows):
        row += [(decode(own[i : i + 1], seed=1000 * k)[:1], "") for k in range(1, 5)]
        row += [(moves[INK][i : i + 1], ""), (moves[DIGIT][i : i + 1], "")]
    titles = ["image", *["variation"] * 4, "next ink", "next digit"]
    note = "Held-out images, samples of the decoder with their embedding, and with one moved by a text difference."
    plot.save_table(rows, [text(one) for one in captions[:5]], titles, options.out / "unclip_variations.png", note)


if __name__ == "__main__":
    main()
