"""EdgeSAMKit's documentation names what the library has."""

from __future__ import annotations

import re

from edgesam_mobile.package.swiftpm import KIT

CATALOGUE = KIT / "EdgeSAMKit.docc"
SOURCES = "\n".join(path.read_text() for path in KIT.glob("*.swift"))


def test_every_symbol_that_is_linked_is_public() -> None:
    pages = "\n".join(page.read_text() for page in CATALOGUE.glob("*.md"))
    linked = set(re.findall(r"(?<!`)``([^`\n]+)``(?!`)", pages))
    assert len(linked) > 10
    for link in linked - {"EdgeSAMKit"}:
        name = re.sub(r"\(.*", "", link.split("/")[-1])
        declared = rf"public (actor|struct|enum|final class|class|protocol|let|func|init|static func)\b.*\b{name}\b"
        declared = r"public init\(" if name == "init" else declared
        assert re.search(declared, SOURCES), link


def test_every_page_that_is_linked_is_there() -> None:
    pages = {page.stem for page in CATALOGUE.glob("*.md")}
    linked = {link for page in CATALOGUE.glob("*.md") for link in re.findall(r"<doc:([^>]+)>", page.read_text())}
    assert linked and linked <= pages
