"""`python -m scratchrnn` is the command `scratchrnn`."""

from scratchrnn.cli import main

if __name__ == "__main__":
    main()
