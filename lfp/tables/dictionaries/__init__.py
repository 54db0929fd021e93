"""Tables of dictionaries: how those of one model serve another, and of which heads they are."""
