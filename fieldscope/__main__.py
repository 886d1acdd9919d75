"""`python -m fieldscope`: the command line."""

from fieldscope.service.cli.main import main

if __name__ == "__main__":
    main()
