"""A name and a signature become a checked callable."""
