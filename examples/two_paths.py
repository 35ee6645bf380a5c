"""How much of an LSTM's gradient comes back along its cells, and how far off the product of forget gates is.

Three nets on random input, none of them trained: torch's default weights, forget gates opened by a bias of 3, and
recurrent weights four times as large. Prints both at some distances and saves two_paths.png, of the first net.
"""

import numpy as np

import scratchrnn as srnn
from scratchrnn import plots
from scratchrnn.gradflow import forget_product, split_paths

STEPS, BATCH, INPUTS, HIDDEN = 60, 16, 10, 64


def net(forget_bias: float, scale: float) -> srnn.LSTM:
    """torch's default weights, changed."""
    lstm = srnn.LSTM(INPUTS, HIDDEN, dtype=np.float64, rng=np.random.default_rng(0))
    if forget_bias:
        srnn.init.forget_bias_(lstm, forget_bias)
    lstm.weight_hh_l0 *= scale
    return lstm


rng = np.random.default_rng(1)
x = rng.standard_normal((STEPS, BATCH, INPUTS))
d_last = rng.standard_normal((1, BATCH, HIDDEN))  # dL/dh of the last step, at random
nets = {"default": net(0.0, 1.0), "forget bias 3": net(3.0, 1.0), "W_hh x 4": net(0.0, 4.0)}

print("                   dL/dc at distance k:        Jacobian at lag k:")
print("               k   cell path over total        truth   product of f   times off")
for name, lstm in nets.items():
    trace = lstm.forward(x)
    paths = split_paths(lstm, trace, d_state=(d_last, None)).by_distance()
    found = forget_product(trace, max_lag=40)
    for k in (5, 20, 40):
        share = paths.c_path[0, k] / paths.total[0, k]
        truth, product, off = found.truth[0, k], found.product[0, k], found.ratio[0, k]
        print(f"{name:13} {k:2}   {share:20.1e}   {truth:10.1e}   {product:12.1e}   {off:9.2g}")
    if name == "default":
        figure, ax = plots.figure()
        plots.forget_product(ax, found)
        figure.savefig("two_paths.png")
