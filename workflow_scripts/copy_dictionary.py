"""Take a pretrained dictionary of one layer from a local folder; no pickle is read."""

from lfp.files import writing
from lfp.running import job
from lfp.settings import Source


def main() -> None:
    run = job.start(__doc__)
    source, place = Source.of(run.settings), run.stage("layer", "site", "width")
    from lfp.sae import store
    from lfp.sae.sources.files import check, dictionary_files
    from lfp.sae.sources.weights import read

    files = dictionary_files(source.path, source, place["layer"], source.path)
    check(files, **place, origin=source.path)
    sae = read(files, source.format)
    sae.site, sae.layer = place["site"], place["layer"]
    with writing.directory_aside(run.output.dictionary, run.stamp) as folder:
        store.save(sae, folder, {"origin": str(files.weights)})
    run.sources += files.all
    run.finish(f"{sae.architecture}, {sae.d_sae} latents, from {files.weights}")


if __name__ == "__main__":
    main()
