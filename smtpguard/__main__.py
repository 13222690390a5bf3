"""``python -m smtpguard``, and the console script."""

from smtpguard.cli.main import main

if __name__ == "__main__":
    main()
