"""``python -m ruac.cli VERB ...``, for launchers that start modules."""

from ruac.cli import main

if __name__ == "__main__":
    main()
