"""The summary: verdicts in words on every policy, read from the rows of other tables."""
