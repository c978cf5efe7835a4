"""Decides, from the walk, the ledger and the config, about every output, each with a reason.

plan       the decisions about all outputs of a run, in temporary tables on disk (`plan`, `plan_store`)
decision   the action for one output, its reason, and the paths that a job needs (`decisions`)
reason     a code with particulars as plain data, of which `text_of` makes a sentence (`decisions`)
recipe     everything but the source that decides an output's contents (`recipe`)
spec       one output of the tree of stages: its template, its route and its recipe (`recipe`)
fresh      made of the present source by the present recipe, and unchanged since (`freshness`, `group_freshness`)
group      files that one call of a stage gathers, its members (`groups`, `group_members`)
range      about a thousand sources in a row, passed over whole if their digest is unchanged (`ranges`, `unchanged`)
learnt     what jobs are expected to take, by the outputs they make and the size of their source (`learnt`)
selection  the files that a run is asked to process; it does not decide which files exist (`selection`)
rename     a file that is moved, since only its output's path has changed (`renames`)
orphan     a recorded output that no source and template produces any more (`orphans`)
"""
