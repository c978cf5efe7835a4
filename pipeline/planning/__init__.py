"""Walk, ledger and config give decisions with reasons."""
