"""What feedback changed in a policy, read off its differences from the base.

Nothing here is fitted on the feedback, and no lexicon is read but where a readout says so.
"""
