"""Five sick nets, and what the diagnosis says of each: run it, and break something else."""

from __future__ import annotations

import numpy as np

import scratchrnn as srnn
from scratchrnn import dynamics, losses, models

rng = np.random.default_rng(0)
x = rng.standard_normal((40, 8, 3), np.float32)  # (T, B, I)
y = rng.standard_normal((8, 1), np.float32)


def net(layer: srnn.RNN | srnn.LSTM) -> models.LastStep:
    """One number for each sequence, from the layer's last state."""
    return models.LastStep(layer, 1, rng=rng)


def report(title: str, model: models.LastStep, inputs: np.ndarray) -> None:
    """Run it forward and back, and print what is found."""
    found = dynamics.diagnose_model(model, inputs, y, loss=losses.mse_loss)
    print(f"\n=== {title}")
    print("\n".join(map(str, found.findings)) or "nothing found")


report("A healthy LSTM", net(srnn.LSTM(3, 16, 2, rng=rng)), x)

closed = net(srnn.LSTM(3, 16, 2, rng=rng))
closed.parameters["rnn.bias_ih_l1"][-16:] = -20  # the rows of the output gate
report("Its second layer lets nothing out", closed, x)

report("Inputs in the hundreds", net(srnn.RNN(3, 16, rng=rng)), 300 * x)

deaf = net(srnn.RNN(3, 16, rng=rng))
deaf.parameters["rnn.weight_ih_l0"][:] = 0
report("A net that does not hear its input", deaf, x)
report("One sample repeated, a bug in the loader", net(srnn.RNN(3, 16, rng=rng)), np.repeat(x[:, :1], 8, axis=1))

relu = srnn.RNN(3, 16, nonlinearity="relu", rng=rng)
relu.parameters["weight_hh_l0"] *= 40
report("A relu net with large recurrent weights", net(relu), x)

cut_off = net(srnn.LSTM(3, 16, rng=rng))
cut_off.parameters["decoder.weight"][:] = 0
report("A decoder of zeros", cut_off, x)

watch = dynamics.Diagnostics()
model = net(srnn.LSTM(3, 16, rng=rng))
copies = {name: array.copy() for name, array in model.parameters.items()}
optimizer = srnn.optim.Adam(copies, lr=0.01)  # of copies: the model never hears of it
for _ in range(30):
    trace = model.forward(x)
    loss, d_output = losses.mse_loss(trace.output, y)
    optimizer.step(model.backward(trace, d_output).parameters)
    watch.add_update(model.parameters, float(loss))
print("\n=== An optimizer of other arrays")
print("\n".join(map(str, watch.result().findings)))
