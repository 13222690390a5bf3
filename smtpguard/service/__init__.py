"""The verbs: accept a transaction, release and discard quarantined messages, import addresses."""
