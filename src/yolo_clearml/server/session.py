"""A login to the configured ClearML server by the SDK's own session, with every exchange one bounded request.

The SDK knows the user's setup: configuration, credentials, tokens. Its loops around them have no end.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import jwt
import requests
from clearml.backend_api import Session
from clearml.backend_api.session import session as sdk_session
from clearml.backend_api.session.defs import (
    ENV_ACCESS_KEY,
    ENV_API_DEFAULT_REQ_METHOD,
    ENV_AUTH_TOKEN,
    ENV_HOST_VERIFY_CERT,
    ENV_OFFLINE_MODE,
    ENV_SECRET_KEY,
    MissingConfigError,
)
from clearml.backend_api.session.session import LoginError
from clearml.backend_api.utils import get_http_session_with_retry
from clearml.backend_config import config as sdk_config
from clearml.backend_config import environment as sdk_environment
from clearml.backend_config import utils as sdk_utils
from clearml.backend_config.defs import LOCAL_CONFIG_FILE_OVERRIDE_VAR, LOCAL_CONFIG_FILES
from clearml.backend_config.errors import ConfigurationError
from clearml.config import config_obj
from clearml.debugging.log import LoggerRoot

from ..errors import CredentialsRefused, NotConfigured, UsageError, YoloClearmlError, public
from .exchange import (
    PassingError,
    Patience,
    check_status,
    exchange,
    is_address,
    not_the_api,
    proxy_of,
    proxy_unusable,
    public_address,
    verifies,
)
from .payloads import Json

_CONNECT = 10.0  # seconds for a connection to be accepted
_METHODS = ("POST", "GET", "PUT")


class BoundedSession(Session):  # type: ignore[misc]  # clearml is untyped
    """The SDK's session for configuration, login and tokens, with every exchange one bounded request.

    ``method`` is that of every request, whatever the SDK asks for.
    """

    def __init__(self, timeout: float, method: str) -> None:
        self._limit = timeout
        self._method = method
        self.ahead: float | None = None  # seconds of the server's clock before ours; None: it does not say
        self._http = get_http_session_with_retry(total=0, config=config_obj)
        self._http.write_timeout = (_CONNECT, timeout)
        super().__init__(
            initialize_logging=False,
            config=config_obj,
            logger=logging.getLogger("clearml.session"),
            http_retries_config={"total": 0},
        )

    def refresh_token(self) -> None:
        """Log in; raises PassingError, CredentialsRefused or ServerUnreachable, and no error of the SDK."""
        host = public_address(self.host)
        try:
            super().refresh_token()
        except (LoginError, ValueError, jwt.PyJWTError) as error:
            # the SDK wraps what happened on the way to the login in an error of its own
            if isinstance(error.__context__, (PassingError, YoloClearmlError)):
                raise error.__context__ from None
            # without a context it is the server's own word; with one, the reply was of no use to the SDK
            if isinstance(error, LoginError) and error.__context__ is None:
                raise CredentialsRefused(
                    f"ClearML at {host} refuses the credentials.",
                    "Create new ones in ClearML (Settings, Workspace, App credentials) and put them into"
                    " clearml.conf, or into CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY.",
                ) from error
            raise not_the_api(host) from error

    def _send_request(
        self,
        service: str,
        action: str,
        version: str | None = None,
        method: str | None = None,
        headers: Json | None = None,
        auth: Any = None,
        data: Any = None,
        json: Any = None,
        refresh_token_if_unauthorized: bool = True,
        params: Any = None,
    ) -> requests.Response:
        """Exchange one request; the SDK's signature, and nothing of its endless loops."""
        endpoint = f"{service}.{action}"
        version_part = f"/v{version}" if version else ""
        reply = exchange(
            "ClearML's API server",
            public_address(self.host),
            self._limit,
            lambda: self._http.request(
                self._method,
                f"{self.host}{version_part}/{endpoint}",
                headers=headers,
                auth=auth,
                data=data,
                json=json,
                params=params,
                timeout=(min(_CONNECT, self._limit), self._limit),
                allow_redirects=False,  # a redirected POST arrives as a GET
                verify=verifies(self._http),
                stream=True,  # the body is read under a limit of its own
            ),
        )
        self.ahead = _ahead(reply)
        check_status(reply, self.host)
        if refresh_token_if_unauthorized and reply.status_code == requests.codes.unauthorized:
            self.refresh_token()
            return self._send_request(
                service,
                action,
                version,
                method,
                self.add_auth_headers(dict(headers or {})),
                auth,
                data,
                json,
                refresh_token_if_unauthorized=False,
                params=params,
            )
        return reply


def _ahead(reply: requests.Response) -> float | None:
    """Give the seconds that a server's clock is ahead of ours by its reply, which states whole ones."""
    try:
        return parsedate_to_datetime(reply.headers.get("Date", "")).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return None


def configuration_files() -> tuple[str | None, list[Path]]:
    """Give the variable that names ClearML's configuration file, and the files that are looked for.

    Where none does it is None, and the SDK reads each file that is there; what the last one states counts
    (S/backend_config/config.py).
    """
    variable, chosen = LOCAL_CONFIG_FILE_OVERRIDE_VAR.get_pair()
    if chosen:
        return str(variable), [Path(os.path.expanduser(chosen))]  # noqa: PTH111  as the SDK, also without a home
    return None, [Path(name) for name in LOCAL_CONFIG_FILES]


def keys_named_by() -> str:
    """Give what the credentials come from: a variable, or clearml.conf."""
    if ENV_AUTH_TOKEN.get():
        return str(ENV_AUTH_TOKEN.key)
    pairs = [entry.get_pair() for entry in (ENV_ACCESS_KEY, ENV_SECRET_KEY)]
    names = [str(variable) for variable, value in pairs if value]
    return " and ".join(names if len(names) == len(pairs) else [*names, "api.credentials in clearml.conf"])


def verification() -> tuple[bool | str, str]:
    """Give whether certificates are verified, or against which file, and the setting that decides."""
    variable, value = ENV_HOST_VERIFY_CERT.get_pair(default=None)
    named_by = str(variable) if value is not None else "api.verify_certificate in clearml.conf"
    verify = get_http_session_with_retry(total=0, config=config_obj).verify
    if verify is False:
        return False, named_by
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # which requests lets go before a session's own
        if os.environ.get(name):
            return os.environ[name], name
    return (verify, named_by) if isinstance(verify, str) else (True, "")


def configured_host() -> str:
    """Give the address of the API server that ClearML's configuration names; raises NotConfigured."""
    _print_to_stderr()
    try:
        host = str(Session.get_api_server_host(config=config_obj)).strip("/")
    except UnicodeDecodeError as cause:
        raise NotConfigured(
            f"ClearML's configuration in {_named()} cannot be read: it is no UTF-8 text.",
            "Save it as UTF-8, which PowerShell's '>' does not, or make it anew with 'clearml-init'.",
        ) from cause
    except ConfigurationError as cause:  # its words can quote a key
        raise NotConfigured(
            f"ClearML's configuration in {cause.file_path or _named()} cannot be read: it is malformed.",
            "Correct it, or make it anew with 'clearml-init'.",
        ) from None
    except OSError as cause:
        raise NotConfigured(
            f"ClearML's configuration in {cause.filename or _named()} cannot be read: {cause.strerror}.",
            "Make it readable, or set CLEARML_CONFIG_FILE to another file, be it an empty one.",
        ) from cause
    except Exception as cause:  # noqa: BLE001  of a variable that is not set, a file that includes itself, a list
        raise NotConfigured(
            f"ClearML's configuration in {_named()} cannot be read: {type(cause).__name__}.",
            "Look for ${VARIABLES} that are not set and for files that it includes, or make it anew with"
            " 'clearml-init'.",
        ) from None
    if not is_address(host):
        raise NotConfigured(
            f"{public_address(host)} is not an address of ClearML's API server.",
            "Write it with http:// or https:// in clearml.conf (api.api_server) or CLEARML_API_HOST.",
        )
    return host


def _named() -> str:
    """Name the files that ClearML's configuration is read from."""
    files = configuration_files()[1]
    return " and ".join(str(path) for path in files if is_there(path)) or str(files[-1])


def is_there(path: Path) -> bool:
    """Check whether a configuration file is there, be it /dev/null, which keeps others from being read."""
    try:
        return path.exists()
    except OSError:  # in the home of another user
        return False


def configured_files_host() -> str:
    """Give the address of the file server that ClearML's configuration names; raises NotConfigured."""
    try:
        host = str(Session.get_files_server_host(config=config_obj)).rstrip("/")
    except ValueError as cause:
        raise NotConfigured(
            "ClearML's configuration names no file server, and none can be guessed from its API server.",
            "Set api.files_server in clearml.conf, or CLEARML_FILES_HOST.",
        ) from cause
    if "://" not in host or not is_address(host):
        raise NotConfigured(
            f"{public_address(host)} is not an address of ClearML's file server.",
            "Write it with http:// or https:// in clearml.conf (api.files_server) or CLEARML_FILES_HOST.",
        )
    return host


def connect(patiently: Patience) -> BoundedSession:
    """Log in to the server that is configured, patiently; raises UsageError, and as `log_in` does."""
    if ENV_OFFLINE_MODE.get():
        raise UsageError(
            "CLEARML_OFFLINE_MODE is set, so ClearML must not be talked to.",
            "Unset it, or write sessions with --offline DIR.",
        )
    address = configured_host()
    host, proxy = public_address(address), proxy_of(address)
    if proxy and not is_address(proxy if "://" in proxy else f"http://{proxy}"):
        raise proxy_unusable(host, "it is no address")
    session = patiently(lambda: log_in(patiently, host))
    log_to_stderr()
    return session


def _print_to_stderr() -> None:
    """Let what the SDK prints while it logs in go to stderr, and nobody else's.

    For as long as a server is waited for, `contextlib.redirect_stdout` would lead there what other threads
    print as well: the lines of runs that have failed meanwhile.
    """
    for module in (sdk_session, sdk_config, sdk_environment, sdk_utils):
        vars(module)["print"] = lambda *what, **how: print(*what, **{"file": sys.stderr, **how})  # noqa: T201


def log_in(patiently: Patience, host: str) -> BoundedSession:
    """Log in, once; raises NotConfigured and as `BoundedSession.refresh_token` does."""
    keys = {
        "an access key": ENV_ACCESS_KEY.get() or config_obj.get("api.credentials.access_key", None),
        "a secret key": ENV_SECRET_KEY.get() or config_obj.get("api.credentials.secret_key", None),
    }
    lacking = [what for what, value in keys.items() if not value]
    if len(lacking) == 1 and not ENV_AUTH_TOKEN.get():
        raise NotConfigured(
            f"ClearML's configuration lacks {lacking[0]}.",
            "Set api.credentials in clearml.conf, or CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY.",
        )
    texts = {what: str(value) for what, value in keys.items() if value}
    odd = [what for what, text in texts.items() if not (text.isascii() and text.isprintable())]
    if odd and not ENV_AUTH_TOKEN.get():
        raise NotConfigured(
            f"ClearML's configuration holds {odd[0]} with a character that no key has.",
            f"Copy it anew, without quotation marks and line ends around it; it is from {keys_named_by()}.",
        )
    method = ENV_API_DEFAULT_REQ_METHOD.get() or config_obj.get("api.http.default_method", None) or "POST"
    method = str(method).strip().upper()
    if method not in _METHODS:
        raise NotConfigured(
            f"{method} is no method that ClearML's API takes.",
            "Set api.http.default_method in clearml.conf to POST or GET.",
        )
    try:
        session = BoundedSession(patiently.seconds, method)
        session.get_decoded_token(session.raw_token or b"")
        return session
    except MissingConfigError as cause:
        raise NotConfigured(
            "ClearML is not configured: there are no credentials.",
            "Run 'clearml-init', or set CLEARML_API_HOST, CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY.",
        ) from cause
    except (LoginError, ValueError, jwt.PyJWTError) as error:
        raise not_the_api(host) from error


def log_to_stderr() -> None:
    """Move the SDK's log from stdout, which is for what the user asked for, and keep passwords out of it."""
    LoggerRoot.get_base_logger()  # or it is made at the first word, and writes to stdout
    for handler in _handlers(logging.getLogger("clearml")):
        handler.addFilter(_published)
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)


def _published(record: logging.LogRecord) -> bool:
    record.msg, record.args = public(record.getMessage()), ()
    return True


def _handlers(logger: logging.Logger) -> Iterator[logging.Handler]:
    yield from logger.handlers
    for name in list(logging.Logger.manager.loggerDict):
        child = logging.getLogger(name)
        if name.startswith(logger.name + "."):
            yield from child.handlers
