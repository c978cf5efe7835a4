"""One job inside one process."""
