"""The logic of the verbs of the command line, without its parsing: run, prune, verify, explain, try, new and others.

run           brings every selected output up to date, as a list of steps over one context (`run`, `run_context`)
guard         a check that stops a run before it does harm, such as on a disk that is not mounted (`guards`)
confirmation  the user's word that a guard may let something pass (`guards`)
observer      receives the events of a run, after they are recorded (`recorder`)
orphan        a recorded output that no source and template produces any more (`prune`)
trial         one file taken through a pipeline in this process, into a folder of its own (`trial`)
sample        a run over randomly chosen inputs, into another folder (`sample`)
note          what a run that left nothing to be done says to the next one (`unchanged_note`)
override      a decision about outputs that the user has the ledger record, by `adopt` or `accept` (`override_tally`)
"""
