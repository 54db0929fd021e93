"""What a change of weights is: the effect of its doses, and of one vector in its place."""
