"""The SQLite memory of what was made from what, by which recipe; all SQL, and all recovery of the file.

record       what is known of one output: its source, its recipe, the file that was written (`outputs`)
intent       an output that was handed out to be made, and is not known to have ended (`intents`)
failure      an output that failed and has not been made since (`failures`)
fact         plain data about the pipeline as a whole, by name (`ledger`)
range        about a thousand sources in a row whose outputs are all up to date, known by one digest (`ledger`)
override     what a person had the ledger take as true, by `accept`, `adopt` or `prune` (`overrides`)
origin       how a source or a group is kept in three columns (`origins`)
plan tables  temporary tables of what a run decides, and of the members of groups (`plan_tables`, `group_tables`)
run          one execution, how far what it made is on the disk, and how it ended (`runs`)
window       the one period of which the ledger may not know all that was made (`runs`, found by `recovery`)
checkpoint   what was made is brought to the disk, and the ledger is copied (`checkpoint`)

`session` opens and closes the ledger of a state folder, `recovery` replaces it if it is damaged.
"""
