"""The logic of each verb, free of argparse: run, prune, verify, explain, try, sample, scaffold.

run        a list of named steps over one context; see `run` and `run_context`
recorder   takes the outcomes of jobs: rows in the ledger, lines in the log, counts in the summary
guard      a check that stops a run before it does harm, such as a disk that is not there
override   a decision of a person that the ledger takes as true: adopt, accept, take-over
"""
