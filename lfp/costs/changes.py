"""Costs of reading what fine-tuning changed: divergence, locus, readouts, latents, account."""

from __future__ import annotations

from lfp.costs.base import FLOAT, Cell, Cost, Memory, reading_memory


def divergence_cost(cell: Cell) -> Cost:
    """The activations of policy and base on the same texts, in all layers."""
    shape, read = cell.shape, cell.settings["divergence"]
    in_flight = read["batch_size"] * read["max_tokens"]
    return cell.cost(
        "divergence",
        2 * read["texts"] * read["max_tokens"] * shape.forward,
        Memory(
            FLOAT * shape.parameters + reading_memory(shape, in_flight, FLOAT, 2 * shape.n_layers),
            passing=2 * FLOAT * shape.parameters,
            unread=2 * FLOAT * shape.head,
        ),
    )


def change_cost(cell: Cell) -> Cost:
    """Readings of the change: words behind their contexts, and the triples, by both models.

    Words are taken to have two pieces behind the context, and all copies with noise read them.
    """
    shape, about = cell.shape, cell.about
    max_tokens, settings = cell.settings["features"]["max_tokens"], cell.settings["change"]
    words = settings["contexts"] * settings["context_tokens"]
    words += settings["piece_contexts"] * 2 * settings["words"]
    triples = 2 * about["triples"] * max_tokens
    read = 2 * shape.forward * ((1 + settings["noise_draws"]) * words + triples)
    in_flight = settings["batch_size"] * max(settings["context_tokens"], max_tokens)
    # Of the positions held at once; of heads one layer's, about one in 64 of the width.
    parts = 2 * 512 * (2 * shape.n_layers + 1 + shape.d_model // 64) * shape.d_model
    return cell.cost(
        "change",
        read,
        Memory(
            FLOAT * shape.parameters * (2 if settings["noise_draws"] else 1)
            + reading_memory(shape, in_flight, FLOAT, 6 * shape.n_layers, 512)
            + FLOAT * (2 * parts + 2 * shape.head),
            arrays=2 * 2 * FLOAT * about["triples"] * shape.n_layers * shape.d_model,
            passing=2 * FLOAT * shape.parameters,
        ),
    )


def latents_cost(cell: Cell) -> Cost:
    """Shares and shifts of latents: contexts or triples, and texts, by all models.

    Words of one token are read behind their contexts at once, and all latents of a layer have a
    product with each of them.
    """
    shape, about = cell.shape, cell.about
    max_tokens, settings = cell.settings["features"]["max_tokens"], cell.settings["change"]
    triples = 2 * about["triples"] * max_tokens if about["preference"] else 0
    contexts = 0 if about["preference"] else settings["contexts"]
    models = 2 + settings["noise_draws"]
    latents = about["autoencoders"][about["main"]]["sizes"][0] * shape.d_model
    columns = about["layers"] * latents
    chosen = triples + contexts * settings["context_tokens"]
    read = shape.forward * (2 * (models - 1) * chosen + models * settings["contexts"] * max_tokens)
    # Each model writes, and the base reads what all of them wrote.
    written = models * min(settings["latent_prompts"], settings["contexts"])
    read += shape.forward * written * (2 * settings["context_tokens"] + 2 * settings["new_tokens"])
    products = 2 * (models - 1) * contexts * settings["words"] * columns * shape.d_model
    in_flight = settings["batch_size"] * max(settings["context_tokens"], max_tokens)
    parts = 2 * 512 * (2 * shape.n_layers + 1) * shape.d_model
    # The shares of all words behind one context, and of all answers.
    held = max(4 * settings["words"], 4 * about["triples"] * about["preference"]) * columns
    return cell.cost(
        "choice_latents",
        read + products,
        Memory(
            FLOAT * shape.parameters * (2 if settings["noise_draws"] else 1)
            + reading_memory(shape, in_flight, FLOAT, 4 * shape.n_layers, 512)
            + FLOAT * (2 * parts + 2 * shape.head + columns * shape.d_model),
            arrays=2 * FLOAT * held,
            passing=2 * FLOAT * shape.parameters,
        ),
    )


def locus_cost(cell: Cell) -> Cost:
    """The effect of every set of parts that the Shapley values are made of.

    A set is one pass over the completions of all prompts, over both answers of all pairs, or over
    all texts. There are 2^5 sets of components, and two orders of the parts of all
    layers for each of ``orders``.
    """
    shape, asked = cell.shape, cell.settings["locus"]
    sets = 2**5 + 2 * asked["orders"] * (2 * shape.n_layers + 1)
    length, at_once, writes = _effect(cell)
    read = sets * asked["prompts" if writes else "pairs"] * length * shape.forward
    memory = FLOAT * shape.parameters + reading_memory(
        shape, at_once * length, FLOAT, 0, at_once * (1 if writes else length)
    )
    return cell.cost(
        "locus",
        0.0 if writes else read,
        Memory(memory, passing=2 * FLOAT * shape.parameters),
        sampling=read if writes else 0.0,
    )


def _effect(cell: Cell) -> tuple[int, int, bool]:
    """Tokens of an instance of a cell's effect, instances at once, and whether a model writes."""
    settings, about = cell.settings, cell.about
    if about["given"]:
        return settings["divergence"]["max_tokens"], 32, False
    if about["preference"]:
        return 2 * settings["dpo"]["max_length"], 32, False
    ppo = settings["ppo"]
    return ppo["prompt_tokens"][1] + ppo["new_tokens"][1], settings["locus"]["batch_size"], True


def account_cost(cell: Cell) -> Cost:
    """The effect and the distribution of every dose, and of every move by a vector.

    Doses read words behind their contexts as well. Vectors of all layers together take a pass of
    both models for each layer.
    """
    shape, settings = cell.shape, cell.settings
    asked, change, n = settings["account"], settings["change"], settings["account"]["instances"]
    places = 1 + asked["single_layers"] * shape.n_layers
    ways = 2 * len(asked["sites"])  # two claims at every site
    moves = ways * places * len(asked["strengths"]) * (1 + 2 * asked["draws"])
    passes = 2 * ways * (shape.n_layers + 1) if moves else 0
    models = moves + (len(asked["doses"]) + 1 if asked["doses"] else 0)
    length, at_once, writes = _effect(cell)
    at_once = min(at_once, n)
    tokens = settings["divergence"]["max_tokens"]
    texts = n * tokens * (2 * models + passes)
    words = 2 * len(asked["doses"]) * n * (change["context_tokens"] + 2 * change["words"])
    effects = models * n * length * shape.forward
    in_flight = max(at_once * length, 32 * tokens, change["batch_size"] * change["context_tokens"])
    return cell.cost(
        "account",
        (texts + words) * shape.forward + (0.0 if writes else effects),
        Memory(
            2 * FLOAT * shape.parameters + reading_memory(shape, in_flight, FLOAT, 0, in_flight),
            passing=2 * FLOAT * shape.parameters,
        ),
        sampling=effects if writes else 0.0,
    )
