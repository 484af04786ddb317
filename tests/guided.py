"""One reader of binary files under atheris, which follows the branches taken: ``guided.py TARGET FOLDER OPTIONS...``.

FOLDER holds what is found on the way; options are libFuzzer's, such as ``-runs=100000``. Ends with status 0 if nothing
but a `RuacError` that names the file was ever raised. Called by test_guided_fuzz.py.
"""

import sys
import warnings
import zipfile
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["ruac.base", "ruac.calibration", "ruac.data", "ruac.evaluation", "PIL", "numpy.lib"]
):
    import pyarrow as pa
    from fuzzing import survives
    from PIL import Image

    from ruac.calibration import load_calibrator
    from ruac.calibration.registry import build_calibrator
    from ruac.data.id_masks import read_ids
    from ruac.data.sample import image_size, read_image
    from ruac.evaluation.metrics import ReliabilitySums
    from ruac.evaluation.results.schema import ROW
    from ruac.evaluation.sweep.chunks import Chunk, load_chunk, save_chunk

SIDES = (6, 8)
PICTURES = {"png": "L", "tiff": "I;16", "gif": "P", "bmp": "RGB", "jpeg": "RGB", "webp": "RGB", "ppm": "RGB"}


class Pictures:
    """Pictures and maps of object numbers, by their content."""

    def __init__(self, folder: Path):
        self.path = folder / "fuzzed.png"

    def whole(self):
        for kind, mode in PICTURES.items():
            Image.new(mode, SIDES, 3).save(self.path, kind)
            yield self.path.read_bytes()

    def read(self, content):
        self.path.write_bytes(content)
        for read in (image_size, read_image, read_ids):
            survives(read, self.path, names=self.path)


class Chunks:
    """Arrays of a sweep's chunk, one of them damaged; the zip file around them is whole, as checksums would tell."""

    def __init__(self, folder: Path):
        self.path = folder / "fuzzed.npz"
        rows = pa.RecordBatch.from_pylist([{"domain": "d", "image": "i", "object": "0", "model": "a"}], schema=ROW)
        save_chunk(self.path, Chunk(["n0"], [rows], {("a", "total", "image"): ReliabilitySums()}), "key")
        with zipfile.ZipFile(self.path) as archive:
            parts = {name: archive.read(name) for name in sorted(archive.namelist())}
        self.parts = {name: content for name, content in parts.items() if len(content) < 100_000}

    def whole(self):
        for number, content in enumerate(self.parts.values()):
            yield bytes([number]) + content

    def read(self, content):
        if not content:
            return
        name = list(self.parts)[content[0] % len(self.parts)]
        with zipfile.ZipFile(self.path, "w") as archive:
            for each, part in (self.parts | {name: content[1:]}).items():
                archive.writestr(each, part)
        survives(load_chunk, self.path, "key", names=self.path)


class Calibrators:
    """Headers of safetensors; the tensors behind them are whole, and the header's length is right."""

    def __init__(self, folder: Path):
        self.path = folder / "fuzzed.safetensors"
        whole = build_calibrator("clustered").save(self.path).read_bytes()
        end = 8 + int.from_bytes(whole[:8], "little")
        self.header, self.tensors = whole[8:end], whole[end:]

    def whole(self):
        yield self.header

    def read(self, content):
        self.path.write_bytes(len(content).to_bytes(8, "little") + content + self.tensors)
        survives(load_calibrator, self.path, names=self.path)


TARGETS = {"pictures": Pictures, "chunks": Chunks, "calibrators": Calibrators}


def main(name: str, folder: Path, options: list[str]) -> None:
    warnings.simplefilter("ignore")
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    target = TARGETS[name](folder)
    for number, content in enumerate(target.whole()):
        (corpus / f"{number}").write_bytes(content)
        target.read(content)
    given = [f"-artifact_prefix={folder}/", "-max_len=4096", "-rss_limit_mb=4096", *options, str(corpus)]
    atheris.Setup([sys.argv[0], *given], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
