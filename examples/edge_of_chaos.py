"""Where does a random RNN become chaotic? The largest Lyapunov exponent, and the singular values it stands for.

h' = tanh(W h), entries of W from N(0, g²/H). Mean-field theory, for H → ∞, has the edge at g = 1.
"""

import numpy as np

import scratchrnn as srnn
from scratchrnn import gradflow, plots

UNITS = 200
GAINS = np.array([0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0])


def random_net(g: float, rng: np.random.Generator) -> srnn.RNN:
    """Build h' = tanh(W h) with W_ij from N(0, g²/H)."""
    rnn = srnn.RNN(1, UNITS, bias=False, dtype=np.float64, rng=rng)
    rnn.weight_hh_l0 = rng.standard_normal((UNITS, UNITS)) * g / np.sqrt(UNITS)
    return rnn


def main() -> None:
    """Measure λ1 over the gain, compare, draw."""
    rng = np.random.default_rng(0)
    measured = []
    print("   g      λ1  mean field")
    for g in GAINS:
        spectrum = gradflow.lyapunov_spectrum(random_net(g, rng), exponents=1, trajectories=2, rng=rng)
        measured.append(spectrum.exponents[0])
        print(f"{g:4.1f}  {measured[-1]:+.3f}  {gradflow.mean_field_exponent(g):+.3f}")
    chaotic = GAINS[np.array(measured) > 0.01]
    print(f"Chaos (λ1 > 0.01 nats per step) from g = {chaotic.min():g} on." if len(chaotic) else "No chaos.")

    # the same number, from the gradient's side: the largest stretch over 100 steps
    for g in (GAINS[0], GAINS[-1]):
        trace = random_net(g, rng).forward(np.zeros((200, 1, 1)), rng.uniform(-1, 1, (1, 1, UNITS)))
        sigma = gradflow.singular_values(trace, 100, 200).log[0]
        print(
            f"g = {g:g}: over 100 steps a gradient can change by e^{sigma[0]:+.0f} at most, "
            f"that is {sigma[0] / 100:+.2f} per step; the direction in the middle by e^{sigma[UNITS // 2]:+.0f}"
        )

    with plots.style():
        figure, ax = plots.figure()
        plots.largest_exponent(ax, GAINS, {f"H = {UNITS}": np.array(measured)})
        figure.savefig("edge_of_chaos.png")


if __name__ == "__main__":
    main()
