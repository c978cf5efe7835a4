"""Shows a run to a person, from its events and its counts.

bar      the progress bar on stderr during the run
live     progress.json, for `status` at another terminal
summary  the counts, failures and notes of a run, and their text
"""
