"""What does a net that remembers three bits look like inside? Train one, find its fixed points, and see a cube.

Each pulse sets one of three bits, which must be held until the next pulse on its channel (Sussillo and Barak, 2013).
"""

import numpy as np

import scratchrnn as srnn
from scratchrnn import data, losses, models, optim, plots, train
from scratchrnn.dynamics import connections, fixed_points
from scratchrnn.gradflow import Linearized

rng = np.random.default_rng(0)
model = models.EveryStep(srnn.LSTM(3, 16, rng=rng), 3, rng=rng)
task = train.Sampled(model, lambda r: data.flip_flop(32, 32, r, probability=0.25), losses.mse_loss, rng=rng)
trainer = train.Trainer(task, optim.Adam(model.parameters, lr=0.01), steps=600, progress=False)
loss = [step.loss for step in trainer][-1]
print(f"loss {loss:.1e} after 600 batches; without memory {data.flip_flop_baseline(32, 0.25):.2f}")

inputs, _ = data.flip_flop(64, 40, rng, probability=0.25)
trace = model.rnn.forward(inputs)
points = fixed_points(model.rnn, trace, noise=0.5, rng=rng)  # at input 0: nothing comes in
ways = connections(model.rnn, points)
for number, count in enumerate(np.bincount(points.unstable_directions)):
    print(f"{count:2d} fixed points with {number} unstable directions")

answers = points.states[:, points.output] @ model.decoder.weight.T + model.decoder.bias
bits = ["".join("01"[int(answer > 0)] for answer in row) for row in answers]
stable = [text for text, holds in zip(bits, points.stable, strict=True) if holds]
print(f"the stable ones answer {', '.join(sorted(stable))}")
pairs = [(bits[a], bits[b]) for a, b in ways.end if a >= 0 and b >= 0]
flips = sum(sum(p != q for p, q in zip(a, b, strict=True)) == 1 for a, b in pairs)
print(f"{flips} of {len(pairs)} saddles with one unstable direction lead to two patterns that differ in one bit")

linear = Linearized(trace)
states = np.stack([linear.states(slot) for slot in range(1, linear.steps + 1)])
figure, ax = plots.figure(6.4, 6.0)
labels = [text if holds else "" for text, holds in zip(bits, points.stable, strict=True)]
plots.fixed_points(ax, points, connections=ways, trajectories=states, labels=labels)
figure.savefig("flip_flop.png", dpi=150)
