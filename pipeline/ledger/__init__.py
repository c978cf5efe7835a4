"""The SQLite memory of what was made from what, by which recipe; all SQL, and all recovery of the file.

record       what is known of one output: its source, its recipe, the file that was written (`outputs`)
intent       an output that was handed out to be made, and is not known to have ended (`outputs`)
failure      an output that failed and has not been made since (`failures`)
fact         plain data about the pipeline as a whole, by name (`ledger`)
range        about a thousand sources in a row whose outputs are all up to date, known by one digest (`ledger`)
override     what a person had the ledger take as true, by `accept`, `adopt` or `prune` (`overrides`)
origin       how a source or a group is kept in three columns (`origins`)
plan tables  temporary tables of what a run decides, and of the members of groups (`plan_tables`, `group_tables`)
seal         a checksum of the file as its last writer left it; a marker lies there while it is written (`checkpoint`)

`session` opens and closes the ledger of a state folder, `recovery` replaces it if it is damaged.
"""
