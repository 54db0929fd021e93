"""Judgement of dictionaries: fidelity beside controls, geometry of decoders, sparse probes."""
