"""Files on disk: the walk, path templates, atomic commits, ownership and digests."""
