"""Runs jobs inside one process, which may be a worker of a pool: calls stages and commits their outputs.

    tree     the stages of a pipeline, built and ready to be called; a setup is the picklable data to build one from
    route    the part of the tree that a job passes through, by the stages whose outputs it makes
    job      one source or one group, and the outputs to make of it
    target   one output of a job: the stage whose value it holds, and its path
    part     one of the values that a fan-out stage yields for one value
    handed   a value that is left in a file for a stage in another engine
    scratch  the temporary folder of one job

`main` has the two functions that an engine calls, `start` and `work`, and a picture of a job's way.
"""
