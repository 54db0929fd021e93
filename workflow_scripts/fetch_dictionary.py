"""Fetch a pretrained dictionary of one layer from the Hugging Face hub; no pickle is fetched."""

from lfp.files import hub, writing
from lfp.running import job
from lfp.settings import Source


def main() -> None:
    run = job.start(__doc__)
    source, place = Source.of(run.settings), run.stage("layer", "site", "width")
    from lfp.sae import store
    from lfp.sae.sources.files import check, dictionary_files, patterns
    from lfp.sae.sources.weights import read

    origin = f"{source.hub} at {source.revision}"
    folder = hub.snapshot(source.hub, source.revision, patterns(source, place["layer"]))
    files = dictionary_files(folder, source, place["layer"], origin)
    check(files, **place, origin=origin)
    sae = read(files, source.format)
    sae.site, sae.layer = place["site"], place["layer"]
    with writing.directory_aside(run.output.dictionary, run.stamp) as folder:
        store.save(sae, folder, {"origin": f"{origin}: {files.weights.name}"})
    run.finish(f"{sae.architecture}, {sae.d_sae} latents, from {origin}")


if __name__ == "__main__":
    main()
