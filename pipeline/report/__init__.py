"""Shows a run to a person, from its events and its counts.

bar      the progress bar on stderr during the run
live     progress.json, for `status` at another terminal
summary  the counts, failures and notes of a run, and their text
statistics  the figures of a run, added up while it is on
document    the report of a run as plain data, for report.json and the page; samples, what it shows of the outputs
comparison  two reports side by side
"""
