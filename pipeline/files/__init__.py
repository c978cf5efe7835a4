"""Files on disk: the walk, path templates, atomic commits, ownership and digests.

store       the place where files lie, chosen once for each root; today only the local file systems (`store`)
template    the path of an output, with fields such as {dir} that each source fills in (`template`)
commit      giving a complete temporary its final name (`atomic`); all parts of a fan-out together (`parts`)
owner file  `.filemill` in an output folder, which names the pipeline that owns the folder (`ownership`)
state       the folder of the ledger, the lock and the logs of one pipeline (`state_dir`)
at rest     last changed more than a tick of the coarsest clock ago, so that every later change shows (`digest`)
"""
