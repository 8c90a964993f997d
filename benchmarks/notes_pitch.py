"""How often samples of a run on `Notes` play the note of their class.

The pitch is where the spectrum is largest: at the very frequency of the class, one of 256, or nearer to it than to that
of any other note of the scale.

python benchmarks/notes_pitch.py runs/ddpm_notes --count 200
"""

from __future__ import annotations

import argparse

import torch

import unidiff as ud

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run")
parser.add_argument("--count", type=int, default=200, help="samples, of all classes in turn")
options = parser.parse_args()

run, notes = ud.load(options.run), ud.data.Notes
label = torch.arange(options.count) % notes.classes
x = ud.sample(run.denoiser, seeds=options.count, batch=100, label=label).x[:, 0].double()
spectrum = torch.fft.rfft(x).abs()
pitch = torch.tensor(notes.PITCHES)[label // len(notes.INSTRUMENTS)]
peak, scale = spectrum.argmax(1), torch.tensor(notes.PITCHES)
told = scale[(peak[:, None] - scale).abs().argmin(1)] == pitch
print(
    f"{int(told.sum())} of {options.count} play the pitch of their class, {int((peak == pitch).sum())} at its frequency"
)

# The instrument: whose amplitudes, relative to the first, are nearest to those at the multiples of the pitch.
recipes = torch.tensor([[*amplitudes, 0.0, 0.0, 0.0][:5] for amplitudes in notes.INSTRUMENTS.values()]).double()
found = spectrum.gather(1, pitch[:, None] * torch.arange(1, 6)) / spectrum.gather(1, pitch[:, None])
played = torch.cdist(found, recipes).argmin(1) == label % len(recipes)
print(f"{int(played.sum())} have the harmonics of its instrument, {int((told & played).sum())} both")
