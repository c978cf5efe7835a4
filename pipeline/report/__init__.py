"""The terminal's view of a run, made from its events and its counts.

bar      the progress bar on stderr while the run goes on
live     progress.json, for `status` at another terminal
summary  the counts, failures and notes of a run, and their text
"""
