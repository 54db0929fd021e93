"""Write a page in HTML for every explained latent of a cell, and their index."""

from lfp.files import writing
from lfp.pages.latents import CellFiles, read_latents
from lfp.pages.rendering import About, write_pages
from lfp.running import job


def main() -> None:
    run = job.start(__doc__)
    files = CellFiles(**vars(run.input))
    latents = read_latents(files, run.settings["explainer"], run.settings["confidence"])
    with writing.directory_aside(run.output.pages, run.stamp) as folder:
        write_pages(folder, latents, About(**run.settings["about"]))
    run.finish(f"{len(latents)} latents")


if __name__ == "__main__":
    main()
