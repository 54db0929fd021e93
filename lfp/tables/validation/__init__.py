"""The method's own validation: do its parts agree with each other, and where does it err?"""
