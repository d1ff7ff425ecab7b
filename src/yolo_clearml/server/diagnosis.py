"""What is found when the way to ClearML is looked into, step by step: of `doctor`, which sends nothing else.

    configuration --> TLS and proxies --> API server --> credentials --> clock --> file server, model storage

What needs a step that has failed is not looked into. A file is sent to each storage, read back and deleted,
by the very calls that runs are sent with.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from ..errors import (
    CredentialsRefused,
    FileNotTaken,
    NotConfigured,
    UsageError,
    YoloClearmlError,
)
from ..sync.checks import Check, Finding, failed, fine, not_checked, warning
from .api import Api
from .destination import FILES_SERVER, PLOTS_SERVER, Destination, by_default, naming
from .exchange import Patience, proxy_of, public_address
from .session import (
    BoundedSession,
    configuration_files,
    configured_files_host,
    configured_host,
    connect,
    is_there,
    keys_named_by,
    verification,
)

_CONFIGURATION, _API, _CREDENTIALS = "configuration", "API server", "credentials"
_CLOCK, _FILES, _PLOTS, _MODELS = "clock", "file server", "plots", "model storage"
_NAMED_BY = "CLEARML_API_HOST names it, or api.api_server in clearml.conf; where neither does, it is https://api.clear.ml."
_APART = 60.0  # seconds that two clocks may be apart; S3 refuses requests at 15 minutes
_CONTENT = b"Written by 'yolo-clearml doctor' to see whether files arrive here; it can be deleted.\n"


def connection(output_uri: str | None, timeout: float, stop: threading.Event) -> Iterator[Check]:
    """Check the way to ClearML and to the storages; each step gives up after ``timeout`` seconds."""
    after = (_API, _CREDENTIALS, _CLOCK, _FILES, _MODELS)
    try:
        host = configured_host()
    except NotConfigured as error:
        yield failed(_CONFIGURATION, error)
        yield from (not_checked(name, "The configuration cannot be read.") for name in after)
        return
    try:
        session = connect(Patience(timeout, stop))
    except (NotConfigured, UsageError) as error:
        yield Check(_CONFIGURATION, Finding.FAILED, f"{error} {_sources()}", error.hint, error.status)
        yield from _ways({_API: host})
        yield from (not_checked(name, "ClearML is not configured.") for name in after)
        return
    except CredentialsRefused as error:
        yield from _configured(host)
        yield fine(_API, f"{public_address(host)} answers.")
        yield failed(_CREDENTIALS, error)
        yield from (not_checked(name, "It needs credentials.") for name in after[2:])
        return
    except YoloClearmlError as error:
        yield from _configured(host)
        yield replace(failed(_API, error), hint=f"{error.hint} {_NAMED_BY}")
        yield from (not_checked(name, "The API server is not reached.") for name in after[1:])
        return
    yield from _configured(host)
    yield from _session(host, session)
    try:
        api = Api(timeout, stop, session)
    except NotConfigured as error:
        yield failed(_FILES, error)
        yield not_checked(_MODELS, "No file server is configured.")
        return
    yield from _storages(api, output_uri)


# -- configuration ----------------------------------------------------------------------------------------


def _configured(host: str) -> Iterator[Check]:
    variable, files = configuration_files()
    if variable is not None and not is_there(files[0]):
        hint = f"Correct {variable}, or make the file with 'clearml-init'."
        yield warning(_CONFIGURATION, f"{variable} names a file that is not there. {_sources()}", hint)
    else:
        yield fine(_CONFIGURATION, _sources())
    ways = {_API: host}
    with contextlib.suppress(NotConfigured):  # which is the file server's check to report
        ways[_FILES] = configured_files_host()
    yield from _ways(ways)


def _sources() -> str:
    """Name the files and variables that ClearML's configuration comes from, without a value."""
    variable, files = configuration_files()
    named = f" ({variable})" if variable is not None else ""
    there = [f"{path}{named}" for path in files if is_there(path)]
    names = [
        name for name in sorted(os.environ) if name.startswith(("CLEARML_", "TRAINS_")) and name != variable
    ]
    sources = " and ".join([*there, *([", ".join(names)] if names else [])]) or "nowhere"
    return f"From {sources}{'' if there else f'; there is no {files[-1]}{named}'}."


def _ways(addresses: dict[str, str]) -> Iterator[Check]:
    """Tell which proxy is before the servers, and whether their certificates are verified."""
    texts, open_to = [], ""
    for who, address in addresses.items():
        texts.append(f"{who} {_proxy(address)}")
    secured = [who for who, address in addresses.items() if urlsplit(address).scheme == "https"]
    verify, setting = verification()
    if not secured:
        texts.append("no TLS")
    elif verify is False:
        open_to = f"Take {setting} away, or name the file of the certificates' authority there."
        texts.append(f"certificates are not verified ({setting})")
    elif verify is True:
        texts.append("certificates are verified")
    else:
        texts.append(f"certificates are verified with {verify} ({setting})")
        if not os.path.exists(verify):  # noqa: PTH110  a file or a folder
            open_to = f"Correct {setting}: there is no {verify}."
    text = f"{'; '.join(texts)}."
    yield warning("TLS and proxies", text, open_to) if open_to else fine("TLS and proxies", text)


def _proxy(address: str) -> str:
    proxy = proxy_of(address)
    if proxy is not None:
        kinds = (f"{urlsplit(address).scheme}_proxy", "all_proxy")
        variables = (name for name, value in os.environ.items() if name.lower() in kinds and value == proxy)
        return f"by proxy {public_address(proxy)} ({next(variables, 'settings of the system')})"
    exempted = next((name for name in ("no_proxy", "NO_PROXY") if os.environ.get(name)), None)
    return f"without proxy ({exempted})" if exempted and _any_proxy(address) else "without proxy"


def _any_proxy(address: str) -> bool:
    kinds = (f"{urlsplit(address).scheme}_proxy", "all_proxy")
    return any(value and name.lower() in kinds for name, value in os.environ.items())


# -- the API server ---------------------------------------------------------------------------------------


def _session(host: str, session: BoundedSession) -> Iterator[Check]:
    claims = session.get_decoded_token(session.token)
    claims = claims if isinstance(claims, dict) else {}
    release = claims.get("server_version") or "of an unknown release"
    yield fine(
        _API,
        f"{public_address(host)} answers: server {release}, API {claims.get('api_version') or 'unknown'}.",
    )
    identity = claims.get("identity") or {}
    user = identity.get("user_name") or identity.get("user") or "a user it does not name"
    workspace = identity.get("company_name") or identity.get("company")
    where = f" in the workspace {workspace}" if workspace else ""
    yield fine(_CREDENTIALS, f"Those of {user}{where}, from {keys_named_by()}.")
    yield _clock(session.ahead)


def _clock(ahead: float | None) -> Check:
    if ahead is None:
        return not_checked(_CLOCK, "The server does not state its time.")
    if abs(ahead) < _APART:
        return fine(_CLOCK, "It agrees with the server's.")
    text = f"It is {abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the server's."
    return warning(
        _CLOCK,
        text,
        "Set the clock that is wrong (NTP): which runs have died is judged by this machine's, and S3 refuses"
        " requests that are 15 minutes off.",
    )


# -- storages ---------------------------------------------------------------------------------------------


def _storages(api: Api, output_uri: str | None) -> Iterator[Check]:
    files = _round_trip(api, _FILES, Destination(api.files_host, FILES_SERVER))
    yield files
    if api.plots_host != api.files_host:
        yield _round_trip(api, _PLOTS, Destination(api.plots_host, PLOTS_SERVER))
    models = by_default(api, output_uri, None)
    if models.address.rstrip("/") == api.files_host and files.finding is Finding.FAILED:
        yield not_checked(_MODELS, "Models go to the file server, which has failed.")
    elif models.address.rstrip("/") == api.files_host:
        yield fine(_MODELS, "Models go to the file server, where no task or project names another place.")
    else:
        yield _round_trip(api, _MODELS, models)


def _round_trip(api: Api, name: str, to: Destination) -> Check:
    """Send a small file, read it back and delete it."""
    key = f"yolo-clearml-doctor-{uuid.uuid4().hex}.txt"  # beside other files: no folder stays behind
    base = to.address.rstrip("/")
    url, where = f"{base}/{key}", public_address(to.address)
    began = time.monotonic()
    try:
        api.upload(to.address, {key: io.BytesIO(_CONTENT)}, lambda sent: None)
        found = api.fetch(url, len(_CONTENT))
        if found is None or found.sha256 != hashlib.sha256(_CONTENT).hexdigest():
            what = "says that it has none" if found is None else "gives another one back"
            raise FileNotTaken(f"{where} confirmed a file, but {what}.", "Check what stands before it.")
    except YoloClearmlError as error:
        with contextlib.suppress(YoloClearmlError):
            api.remove(url)  # it may be there all the same
        return failed(name, naming(error, to.named_by))
    seconds = time.monotonic() - began
    with contextlib.suppress(YoloClearmlError):
        api.remove(url)
    try:
        deleted = api.fetch(url, len(_CONTENT)) is None
    except YoloClearmlError:
        deleted = False
    if not deleted:
        return warning(
            name,
            f"{where} took a file and gave it back, but did not delete it: {key} is left.",
            "Delete it by hand, should it be in the way; uploads delete nothing there.",
        )
    return fine(name, f"{where} took a file, gave it back and deleted it, in {seconds:.1f} s.")
