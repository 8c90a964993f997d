"""`python -m unidiff`, and so `accelerate launch -m unidiff`."""

from unidiff.cli import main

if __name__ == "__main__":
    main()
