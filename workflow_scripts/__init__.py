"""Command lines of the workflow's rules; the science they call is in
:mod:`workflow_scripts.lfp`.
"""
