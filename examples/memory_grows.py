"""Does memory grow as a net learns? How far gradients reach back, sampled while RNN and LSTM learn to write Python."""

import argparse
import inspect

import numpy as np

from scratchrnn import data, models, optim, plots, train
from scratchrnn.gradflow import GradientFlow, GradientFlowRecorder, TextProbe

STEPS = 400
text = inspect.getsource(argparse)  # a file of the standard library: every machine that runs this has it
vocabulary = data.Vocabulary(text)
to_learn, held_out = data.split(vocabulary.encode(text))


def learn(cell: str) -> GradientFlow:
    """Train one model and return what was seen on the way."""
    model = models.CharModel(vocabulary.characters, cell, hidden_size=64, rng=np.random.default_rng(0))
    recorder = GradientFlowRecorder(TextProbe(held_out))
    trainer = train.Trainer(
        train.LanguageModel(model, data.ContiguousRows(to_learn, batch=32), k1=64),
        optim.Adam(model.parameters, lr=0.01),
        steps=STEPS,
        schedule=train.schedules.linear(STEPS, to=0.1),
        callbacks=[recorder],
        progress=False,
    )
    recorder(trainer)  # the untrained net
    update = np.median([step.seconds for step in trainer])
    flow = recorder.result()
    share = len(flow.steps) * np.median(flow.seconds) / (STEPS * update)  # medians: the first sample loads the kernels
    print(f"{cell.upper()}: an update takes {1e3 * update:.1f} ms, all samples {share:.1%} of training")
    return flow


flows = {cell.upper(): learn(cell) for cell in ("rnn", "lstm")}

print(f"\nHow far back the gradient is still {flows['RNN'].threshold:.0%} of that at the last character:\n")
print("updates  " + "".join(f"{name:>6}" for name in flows) + "   mean forget gate")
for n, step in enumerate(flows["RNN"].steps):
    horizons = "".join(f"{flow.horizon[n]:6}" for flow in flows.values())
    print(f"{step:7}  {horizons}   {flows['LSTM'].forget_gate[n, 0]:.2f}")
for name, flow in flows.items():
    least = flow.steps[flow.horizon.argmin()]
    print(
        f"{name}: {flow.horizon[0]} untrained, {flow.horizon.min()} after {least} updates, {flow.horizon[-1]} trained"
    )

figure, axes = plots.figure()
plots.memory_over_training(axes, flows)
figure.savefig("memory_grows.png")
