"""The tables of interventions: what each does at which cost, and what attribution is worth."""
