"""The four official SAM 2.1 checkpoints: names, address, length and hash."""

from dataclasses import dataclass

from ruac.base.errors import RuacError

BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"


@dataclass(frozen=True)
class Official:
    """One official checkpoint: its YAML inside the sam2 package, its file name, the file's length and SHA-256."""

    size: str
    config: str
    file: str
    bytes: int
    sha256: str


# Meta publishes no list of hashes. Lengths and hashes are those of the Git LFS pointers on Hugging Face:
# https://huggingface.co/facebook/sam2.1-hiera-small (Meta's own) and, for all four,
# https://huggingface.co/camenduru/sam2-1-hiera/commit/cdd35a45a78a3a93bc99988f4b56db40131a823a
OFFICIAL = {
    entry.size: entry
    for entry in (
        Official(
            "tiny",
            "sam2.1_hiera_t.yaml",
            "sam2.1_hiera_tiny.pt",
            156008466,
            "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        ),
        Official(
            "small",
            "sam2.1_hiera_s.yaml",
            "sam2.1_hiera_small.pt",
            184416285,
            "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        ),
        Official(
            "base_plus",
            "sam2.1_hiera_b+.yaml",
            "sam2.1_hiera_base_plus.pt",
            323606802,
            "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        ),
        Official(
            "large",
            "sam2.1_hiera_l.yaml",
            "sam2.1_hiera_large.pt",
            898083611,
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        ),
    )
}


def official(size: str) -> Official:
    """The entry of `size`. Raises `RuacError` for a size that does not exist."""
    if size not in OFFICIAL:
        raise RuacError(f"SAM 2.1 size {size!r}: expected one of {', '.join(OFFICIAL)}")
    return OFFICIAL[size]
