"""What feedback changed in a policy, read off its differences from the base.

Nothing here is fitted on the feedback, and no value reads a lexicon but where a readout says so.
"""
