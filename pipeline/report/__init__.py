"""Shows a run to a person, from its events and its counts.

bar         the progress bar on stderr during the run
live        progress.json, for `status` at another terminal
standing    what that file says, judged by the process of the run, and in words; processes tells that from others
summary     the counts, failures and notes of a run, and their text
statistics  the figures of a run, added up during it
whole_files what several pools have done for one file, put together
document    the report of a run as plain data, for report.json and the page
samples     what the report shows of the outputs: pictures before and after, changed texts
html        the report as one page; charts has the geometry of its charts, template loads what it is made from
comparison  two reports side by side
notify      tells programs and addresses how runs end
metrics     the figures of the last run in a file for Prometheus
trace       a line of JSON for each job of a run
"""
