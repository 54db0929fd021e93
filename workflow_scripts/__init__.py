"""Command lines of the workflow's rules; the science that they call is in :mod:`lfp`."""
