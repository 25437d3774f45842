"""Fetches the tools that the Android harness is built and tested with: ``python -m android_harness.tools.provision``.

What this Debian has is installed by apt. What it lacks comes as packages of older and newer Debians from the mirror
that apt itself is set up with, each checked by its hash and unpacked, not installed, into ``EDGESAM_ANDROID_TOOLS``
or a folder of the project's cache (see ``edgesam_mobile.weights.fetch.cache_root``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgesam_mobile.errors import EdgeSamError, EnvironmentMissing, FetchError
from edgesam_mobile.files import sha256_of
from edgesam_mobile.weights.fetch import cache_root

Report = Callable[[str], None]
# Taken when this is imported: tests point the cache elsewhere afterwards, and must not fetch everything again.
_FOLDER = Path(os.environ.get("EDGESAM_ANDROID_TOOLS") or cache_root() / "android-tools")


@dataclass(frozen=True)
class Deb:
    """A package file in a Debian pool."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Kit:
    """Tools for one purpose; ``NAME.debs`` beside this file lists packages of other Debians, as sha256sum does.

    Attributes:
        commands: programs that must be on the path.
        files: files that must be there.
        packages: of this Debian, which bring both.
    """

    name: str
    commands: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its packages of other Debians are unpacked."""
        return tools_folder() / self.name

    def debs(self) -> list[Deb]:
        """Its packages of other Debians."""
        listed = Path(__file__).with_name(f"{self.name}.debs")
        lines = listed.read_text().splitlines() if listed.exists() else []
        return [Deb(path, sha256) for sha256, path in (line.split() for line in lines)]

    def unpacked(self, deb: Deb) -> Path:
        """The mark that a package was unpacked."""
        return self.folder / ".unpacked" / deb.sha256

    def missing(self) -> list[str]:
        """What is not here, by name; empty if the kit is complete."""
        absent = [name for name in self.commands if shutil.which(name) is None]
        absent += [name for name in self.files if not Path(name).exists()]
        absent += [_name(deb) for deb in self.debs() if not self.unpacked(deb).exists()]
        return absent

    def need(self) -> Path:
        """:attr:`folder`, once everything is here.

        Raises:
            EnvironmentMissing: something is missing.
        """
        if absent := self.missing():
            hint = f"python -m android_harness.tools.provision {self.name}"
            raise EnvironmentMissing(f"missing for {self.name}: {', '.join(absent)}", hint=hint)
        return self.folder


def tools_folder() -> Path:
    """The folder of unpacked tools."""
    return _FOLDER


JVM = Kit(
    "jvm",
    commands=("java", "javac", "jar"),
    files=("/usr/share/java/junit4.jar", "/usr/share/java/hamcrest-all.jar"),
    packages=("openjdk-17-jdk-headless", "junit4", "libhamcrest-java"),
)
HOST = Kit("host", commands=("java", "javac", "g++"), packages=("openjdk-17-jdk-headless", "g++"))
# Only Debian 11 had dx; Android's own later compiler, d8, is not in Debian.
APK = Kit(
    "apk",
    commands=("java", "javac", "keytool", "aapt", "apksigner", "zipalign", "dexdump"),
    files=("/usr/share/android-framework-res/framework-res.apk",),
    packages=("openjdk-17-jdk-headless", "aapt", "apksigner", "zipalign", "dexdump", "android-framework-res"),
)
ENJARIFY = Kit("enjarify")
# Debian 13's adbd with all that it needs, since it wants a newer C library than Debian 12 has.
ADBD = Kit("adbd", commands=("adb", "unshare"), packages=("adb", "util-linux"))
KITS = (JVM, HOST, APK, ENJARIFY, ADBD)


def provision(kit: Kit, report: Report = print) -> None:
    """Bring what a kit lacks.

    Raises:
        EnvironmentMissing: apt is needed and may not be used here.
        FetchError: the mirror has a package no more, or it is another one.
    """
    _install(kit, report)
    for deb in kit.debs():
        if not kit.unpacked(deb).exists():
            report(f"fetching {_name(deb)}")
            _unpack(deb, kit)
    if absent := kit.missing():
        raise EnvironmentMissing(f"still missing for {kit.name}: {', '.join(absent)}", hint="see the lines above")


def _install(kit: Kit, report: Report) -> None:
    wanted = [name for name in (*kit.commands, *kit.files) if shutil.which(name) is None and not Path(name).exists()]
    if not wanted:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *kit.packages]
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise EnvironmentMissing(f"missing: {', '.join(wanted)}", hint=f"as root, on Debian 12: {' '.join(command)}")
    report(f"installing {' '.join(kit.packages)}")
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EnvironmentMissing(f"apt-get cannot install {kit.name}'s packages: {reason}", hint="apt-get update")


def _unpack(deb: Deb, kit: Kit) -> None:
    file = tools_folder() / "debs" / f"{deb.sha256}.deb"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        _download(deb, file)
    kit.folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-x", str(file), str(kit.folder)], check=True)
    mark = kit.unpacked(deb)
    mark.parent.mkdir(exist_ok=True)
    mark.touch()


def _download(deb: Deb, file: Path) -> None:
    import requests

    failures = []
    for mirror in _mirrors():
        part = file.with_suffix(".part")
        try:
            with requests.get(f"{mirror.rstrip('/')}/{deb.path}", timeout=60, stream=True) as answer:
                answer.raise_for_status()
                with part.open("wb") as target:
                    shutil.copyfileobj(answer.raw, target)
        except requests.RequestException as error:
            failures.append(f"{type(error).__name__}: {' '.join(str(error).split())}"[:200])
            continue
        if (digest := sha256_of(part)) == deb.sha256:
            part.replace(file)
            return
        part.unlink()
        failures.append(f"wrong checksum: {digest}")
    hint = f"put the file with sha256 {deb.sha256} at {file}; a mirror drops packages when Debian has newer ones"
    raise FetchError(f"no mirror delivers {_name(deb)}: {'; '.join(failures) or 'apt names none'}", hint=hint)


def _mirrors() -> list[str]:
    """Debian's own archives among what apt is set up with."""
    query = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)", "Created-By: Packages"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")
    sites = [line.partition(" ")[2] for line in listed if line.startswith("Debian ")]
    return list(dict.fromkeys(sites))


def _name(deb: Deb) -> str:
    return deb.path.rpartition("/")[2]


def main() -> int:
    """Provision everything, or the kits named."""
    chosen = [kit for kit in KITS if len(sys.argv) < 2 or kit.name in sys.argv[1:]]
    try:
        for kit in chosen:
            provision(kit)
            print(f"{kit.name}: complete")
    except EdgeSamError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
