"""The logic of each verb, free of argparse: run, prune, verify, explain, try, sample, scaffold."""
