"""Shows a run to a person, from its events and its counts.

bar      the progress bar on stderr during the run
charts   the geometry of the report's charts
html     the report as one page
live     progress.json, for `status` at another terminal
summary  the counts, failures and notes of a run, and their text
template loads the templates of pages
"""
