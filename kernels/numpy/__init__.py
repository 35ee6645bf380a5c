"""The definition: plain NumPy, one line per equation, float32 and float64; what every other backend is held to."""
