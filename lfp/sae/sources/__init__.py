"""Dictionaries that others have trained: their files, and their weights as autoencoders."""
