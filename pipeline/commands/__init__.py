"""One file a verb: `add_arguments` says what it takes, `execute` does it and gives the exit code."""
