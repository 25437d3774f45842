"""The harness app onto an iPhone, from a Mac: built, installed and started with Xcode's own tools.

Of ``devicectl`` only the JSON is read, as Apple advises; ``xcodebuild`` has none, so its words are searched for what
is known to help. Written after Apple's documentation and tested against a made-up ``xcrun``; no Mac has run it yet.
"""

from __future__ import annotations

import json
import plistlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import edgesam_mobile
from edgesam_mobile.errors import DeviceError, EnvironmentMissing
from edgesam_mobile.lab.devices import Device
from edgesam_mobile.lab.protocol.messages import plain
from edgesam_mobile.lab.usbmux import canonical
from edgesam_mobile.weights.fetch import cache_root

SCHEME = "EdgeSAMHarness"
_LIST, _BUILD, _INSTALL, _LAUNCH = 30, 3600, 300, 120  # seconds at most
_BUILDING = threading.Lock()  # two builds in one folder hinder each other
_DEVELOPER_MODE = "on the iPhone, switch on Settings, Privacy & Security, Developer Mode; it restarts"
_TRUST = "unlock the iPhone and answer `Trust This Computer?` with Trust"
_UNKNOWN = "the words are Xcode's own; ios_harness/VERIFY.md does the same by hand"

# What to do by words of the failure. The first that fits counts: causes stand before what follows from them.
_ADVICE = (
    ("developer mode", _DEVELOPER_MODE),
    ("xcode license", "run `sudo xcodebuild -license accept`"),
    ("requires xcode", "install Xcode, open it once, then `sudo xcode-select -s /Applications/Xcode.app`"),
    ("unable to find utility", "install Xcode 15 or later, then `sudo xcode-select -s /Applications/Xcode.app`"),
    ("requires a development team", "name your team with --team TEAM; Xcode shows it under Settings, Accounts"),
    ("no account for team", "sign in to Xcode under Settings, Accounts, or name another team with --team"),
    ("no profiles for", "sign in to Xcode under Settings, Accounts, and choose another bundle id if yours is taken"),
    ("explicitly trusted", "on the iPhone, trust the developer under Settings, General, VPN & Device Management"),
    ("invalid code signature", "on the iPhone, trust the developer under Settings, General, VPN & Device Management"),
    ("maximum number of apps", "remove another app of this developer from the iPhone"),
    ("locked", "unlock the iPhone, leave it unlocked, and try again"),
    ("disk image", "unlock the iPhone and open Xcode's Window, Devices once, so that it prepares the iPhone"),
    ("not paired", _TRUST),
    ("pairing", _TRUST),
    ("unable to find a d", "connect the iPhone by cable; `edgesam-mobile devices` lists what is connected"),
    ("device was not found", "connect the iPhone by cable; `edgesam-mobile devices` lists what is connected"),
)


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Hardware(_Told):
    udid: Annotated[str, Field(min_length=1)]
    product: Annotated[str | None, Field(alias="productType")] = None
    name: Annotated[str | None, Field(alias="marketingName")] = None
    platform: str | None = None


class _State(_Told):
    version: Annotated[str | None, Field(alias="osVersionNumber")] = None
    developer_mode: Annotated[str | None, Field(alias="developerModeStatus")] = None


class _Connection(_Told):
    pairing: Annotated[str | None, Field(alias="pairingState")] = None


class _Listed(_Told):
    hardware: Annotated[_Hardware, Field(alias="hardwareProperties")]
    state: Annotated[_State, Field(alias="deviceProperties")] = _State()
    connection: Annotated[_Connection, Field(alias="connectionProperties")] = _Connection()


def known_devices() -> dict[str, Device]:
    """What Xcode knows of devices, by UDID; nothing where it does not answer. None of them is called ready."""
    try:
        result = _devicectl(("list", "devices"), _LIST, "devices are not listed")
    except (DeviceError, EnvironmentMissing):
        return {}
    listed = result.get("devices")
    found = {}
    for entry in listed if isinstance(listed, list) else ():
        try:
            one = _Listed.model_validate(entry)
        except ValidationError:
            continue  # a watch or a device of long ago, of which it knows less
        udid = canonical(one.hardware.udid)
        hint = _TRUST if one.connection.pairing == "unpaired" else None
        hint = hint or (_DEVELOPER_MODE if one.state.developer_mode == "disabled" else None)
        system = " ".join(part for part in (one.hardware.platform, one.state.version) if part) or None
        model = one.hardware.name or one.hardware.product
        found[udid] = Device(f"ios:{udid}", "attached", model=model, os=system, hint=hint)
    return found


class Installation:
    """Builds the app in Release, installs it on one iPhone and starts it, when called.

    Args:
        team: Apple's development team to sign with; the project's own setting if ``None``.
        say: is told what is going on.

    Raises:
        EnvironmentMissing: there is no Xcode, or no project of the harness.
        DeviceError: when called: whatever Xcode refuses, with what to do about it.
    """

    def __init__(self, udid: str, team: str | None, say: Callable[[str], None]) -> None:
        if shutil.which("xcrun") is None:
            raise EnvironmentMissing(
                "there is no Xcode here to install the harness with",
                hint="without a Mac, open the app on the iPhone by hand and leave --install out",
            )
        self._project = Path(edgesam_mobile.__file__).parents[1] / "ios_harness" / f"{SCHEME}.xcodeproj"
        if not self._project.is_dir():
            raise EnvironmentMissing(
                "the Xcode project of the harness is not here", hint="run it from a checkout of edgesam-mobile"
            )
        self._udid, self._team, self._say = canonical(udid), team, say

    def __call__(self) -> None:
        self._say("building the harness app, which takes minutes the first time")
        with _BUILDING:
            app, bundle = self._build()
        self._say("installing and starting the harness app: leave the iPhone unlocked")
        device = ("--device", self._udid)
        _devicectl(("device", "install", "app", *device, str(app)), _INSTALL, "the app was not installed")
        start = ("device", "process", "launch", "--terminate-existing", *device, bundle)
        _devicectl(start, _LAUNCH, "the app was not started")

    def _build(self) -> tuple[Path, str]:
        """The built app and its bundle id."""
        place = cache_root() / "ios-harness"
        command = ["xcodebuild", "-project", str(self._project), "-scheme", SCHEME, "-configuration", "Release"]
        command += ["-destination", f"id={self._udid}", "-derivedDataPath", str(place), "-allowProvisioningUpdates"]
        command += [f"DEVELOPMENT_TEAM={self._team}"] if self._team else []
        code, said = _xcrun([*command, "build"], _BUILD, "the app was not built")
        if code != 0:
            raise _refusal("the app was not built", _errors_of(said))
        app = place / "Build" / "Products" / "Release-iphoneos" / f"{SCHEME}.app"
        try:
            bundle = plistlib.loads((app / "Info.plist").read_bytes())["CFBundleIdentifier"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DeviceError(
                f"xcodebuild left no {SCHEME}.app that says what it is",
                hint="open the project in Xcode and build it there once",
            ) from error
        return app, str(bundle)


def _devicectl(words: Sequence[str], seconds: float, failure: str) -> dict[str, Any]:
    """Run it and give the ``result`` of its JSON.

    Raises:
        DeviceError: it failed, was too slow or wrote no JSON; ``failure`` says what is therefore not done.
        EnvironmentMissing: there is no ``xcrun``.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        code, said = _xcrun(["devicectl", *words, "--json-output", str(file)], seconds, failure)
        try:
            answer = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            answer = None
    # Without JSON it did not get as far as to run, and only xcrun's words are left.
    if not isinstance(answer, dict):
        raise _refusal(failure, said.strip().splitlines()[-1:])
    info, result = answer.get("info"), answer.get("result")
    outcome = info.get("outcome") if isinstance(info, dict) else None
    if code != 0 or outcome != "success" or not isinstance(result, dict):
        raise _refusal(failure, list(_descriptions(answer.get("error"))))
    return result


def _xcrun(words: Sequence[str], seconds: float, failure: str) -> tuple[int, str]:
    """Exit status, and everything printed."""
    try:
        done = subprocess.run(
            ["xcrun", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"{failure}: Xcode's {words[0]} took longer than {seconds:g} s",
            hint="look at the iPhone's screen, plug it in again, and try once more",
        ) from error
    except OSError as error:
        raise EnvironmentMissing(
            f"{failure}: cannot run xcrun: {error.strerror}", hint="install Xcode, and open it once"
        ) from error
    return done.returncode, done.stdout


def _descriptions(error: Any) -> Iterator[str]:
    """The texts of an error and of those below it, as ``NSError`` is written in JSON: outermost first."""
    if isinstance(error, dict):
        for name, value in error.items():
            text = value.get("string") if isinstance(value, dict) else value
            if name.startswith("NSLocalized") and isinstance(text, str):
                yield text
            else:
                yield from _descriptions(value)


def _errors_of(said: str) -> list[str]:
    """The lines in which xcodebuild says what is wrong, without the file that it blames."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return [line.partition("error:")[2].strip() for line in lines if "error:" in line] or lines[-1:]


def _refusal(failure: str, words: Sequence[str]) -> DeviceError:
    said = " ".join(words).lower()
    hint = next((advice for word, advice in _ADVICE if word in said), _UNKNOWN)
    first = plain(words[0]).rstrip(".") if words else "Xcode does not say why"
    return DeviceError(f"{failure}: {first}", hint=hint)
