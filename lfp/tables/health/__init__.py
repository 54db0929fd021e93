"""Tables that say whether organisms and autoencoders are what later tables take them for."""
