"""Progress and curves of a run while it goes on. Nothing here changes a number."""
