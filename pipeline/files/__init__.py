"""Files on disk: the walk, path templates, atomic commits, ownership and digests.

store       where files lie, chosen once for each root; today the local file systems only (`store`)
template    the path of an output, with fields such as {dir} that each source fills in (`template`)
commit      give a complete temporary its final name (`atomic`); all parts of a fan-out together (`parts`)
owner file  `.filemill` in an output folder, which says to which pipeline the folder belongs (`ownership`)
state       the folder of the ledger, the lock and the logs of one pipeline (`state_dir`)
at rest     last changed more than a tick of the coarsest clock ago, so that every later change shows (`digest`)
"""
