"""Does one job inside one process: opens the source, calls the stages, commits the outputs.

job       a source (or a group) with the outputs that are to be made of it
tree      the stages of the pipeline as one process built them, each value made once and passed to all its children
step      one event of a job, such as a call of a stage, for `try` and other observers
scratch   the job's own folder for temporary files; it is removed when the job ends
"""
