"""Decides what is to be done about each output, and why; nothing here runs a stage or writes an output.

walk + ledger + config -> decisions -> a plan on disk

recipe     everything but the source that decides an output: code, options, save options; see `recipe`
decision   what is done about one output (make, rename, refuse, held, settling, up-to-date), and the reason as data
orphan     a recorded output that no current source and template produces
range      some thousand sources in order, whose outputs are compared by one digest; see `unchanged`
selection  the files that one run is narrowed to; it never changes which files exist
"""
