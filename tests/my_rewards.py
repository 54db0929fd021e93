"""A reward of one's own, as a user writes it."""


def brevity(prompts: list[str], completions: list[str]) -> list[float]:
    """Shorter is better."""
    return [-len(completion.split()) for completion in completions]


def wrong_number(prompts: list[str], completions: list[str]) -> list[float]:
    """One value too few."""
    return [0.0] * (len(completions) - 1)
