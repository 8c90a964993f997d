"""Latent diffusion from end to end: a codec for digits, a diffusion model of its latents, new digits.

A variational autoencoder learns to write digits of 8x8 pixels in latents of 2x4x4 numbers. Its scale is measured, so
that latents have variance 1. A small U-Net learns to denoise latents; what it draws is decoded. Claims, asserted:

- the codec's reconstructions of digits it has not seen leave less than a fifth of their variance unexplained;
- the latents' variance is 1 to four digits;
- decoded samples are nearer to unseen digits than decoded noise is, by a quarter in energy distance: it is the
  diffusion model, not the decoder alone, that makes digits.

    python examples/latent_digits.py --out examples/figures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unidiff as ud
from unidiff import plot


def main() -> None:
    """Train both, draw, hold the claims against what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"), help="folder for the picture")
    parser.add_argument("--codec-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64, help="of the model's training")
    parser.add_argument("--count", type=int, default=200, help="samples to draw")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    digits = ud.data.Digits()
    train, test = digits.open(), digits.open("test")

    # 1. The codec: reconstruction, and a little of the divergence that keeps latents near N(0, 1).
    torch.manual_seed(0)
    fresh = ud.codec.AutoencoderKL(latent_channels=2, channels=(16, 32)).build(channels=1)
    settings = ud.Training(options.codec_steps, batch=32, lr=4e-3, warmup=30, ema=0.97, precision="fp32")
    codec = ud.train(fresh, train, ud.codec.Variational(kl=5e-3), settings)
    codec.set_scale(ud.codec.measure_latents(codec, train).scale)
    codec.save(options.out / "latent_digits_codec")

    # 2. The data in latents, and a model of them: nothing below knows of pictures.
    data = ud.data.Latent(digits, options.out / "latent_digits_codec", cache=False)
    latents = data.open()
    process, network = ud.DDPM(), ud.UNet(data.shape, width=32, multipliers=(1, 2), blocks=1)
    settings = ud.Training(options.steps, batch=options.batch, lr=2e-3, warmup=30, ema=0.99, precision="fp32")
    model = ud.train(ud.NeuralDenoiser(process, ud.Eps(), network), latents, ud.Denoising(), settings)

    # 3. Samples, decoded.
    z = ud.sample(model, shape=data.shape, seeds=options.count).x
    x = data.decode(z)

    seen = test.batch(torch.arange(len(test)))
    again = data.decode(data.encode(seen))
    left = ((again - seen).var() / seen.var()).item()
    variance = latents.values.double().var(correction=0).item()
    noise = data.decode(torch.randn(z.shape, generator=torch.Generator().manual_seed(1)))
    drawn, decoded_noise = (
        ud.evaluation.energy_distance(part.flatten(1), seen.flatten(1)).value for part in (x, noise)
    )
    print(
        f"reconstructions leave {left:.1%} of the variance; latents of shape {data.shape} have variance {variance:.5f}"
    )
    print(f"energy distance from unseen digits: samples {drawn:.3f}, decoded noise {decoded_noise:.3f}")
    assert left < 0.2
    assert abs(variance - 1) < 1e-4
    assert drawn < decoded_noise / 1.3

    rows = [seen[:10], again[:10], noise[:10], *x[:50].split(10)]
    caption = "Unseen digits, their reconstructions, decoded noise; below, samples of the diffusion model in latents."
    plot.save_samples(torch.cat(rows), options.out / "latent_digits.png", caption, columns=10)
    print(f"{options.out / 'latent_digits.png'}")


if __name__ == "__main__":
    main()
