"""`python -m hpo.cli`, as workers are started."""

from hpo.cli import main

if __name__ == "__main__":
    main()
