"""What the errors of storages mean, by how the packages of S3, Google's and Azure's word them.

None of these packages has to be there, so their errors are known by the names and fields they have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import FileNotTaken, FileServerUnreachable, YoloClearmlError
from .exchange import PASSING, PassingError

_NOT_INSTALLED = "UsageError"  # of ClearML's SDK, where it lacks the package of a cloud
_DENIED = (401, 403)
GONE = (404, 410)
# names of errors that are no OSError, of packages that may not be there: botocore, azure.core, google.auth
_NO_ANSWER = {
    *("HTTPClientError", "ConnectionError", "ServiceRequestError", "ServiceResponseError"),
    *("TransportError", "RetryError"),
}
_WORDED = re.compile(r'"message": *"([^"\\]+)"')  # the sentence in the JSON that Google's errors show


@dataclass(frozen=True, slots=True)
class _Cloud:
    """A kind of storage: what its driver needs."""

    name: str
    package: str  # as pip knows it
    section: str  # of clearml.conf
    authority: str  # where a certificate's authority is named


CLOUDS = {
    "s3": _Cloud(
        "S3", "boto3", "sdk.aws.s3", "verify beside its key in clearml.conf (sdk.aws.s3), or AWS_CA_BUNDLE"
    ),
    "gs": _Cloud("Google Cloud Storage", "google-cloud-storage", "sdk.google.storage", "REQUESTS_CA_BUNDLE"),
    "azure": _Cloud("Azure Blob Storage", "azure-storage-blob", "sdk.azure.storage", "REQUESTS_CA_BUNDLE"),
}


def failure(
    address: str,
    text: str,
    errors: Sequence[BaseException],
    otherwise: str = "ClearML's SDK does not say why",
) -> PassingError | YoloClearmlError:
    """Explain what the errors of a step mean; as a PassingError where the next try may fare better."""
    cloud = CLOUDS.get(urlsplit(address).scheme)
    chains = [error for first in errors for error in _chain(first)]
    status = next(filter(None, map(status_of, chains)), None)
    if cloud is not None and any(type(error).__name__ == _NOT_INSTALLED for error in chains):
        identity = any("azure-identity" in str(error) for error in chains)
        package = "azure-identity" if identity else cloud.package
        return FileNotTaken(
            f"{text}: {cloud.name} needs the Python package {package}, which is not installed.",
            f"Install it where yolo-clearml is: pip install {package}",
        )
    sentence = f"{text}: {_reason(errors, status) or otherwise}."
    section = f" (clearml.conf, {cloud.section})" if cloud is not None else ""
    words = " ".join(map(str, chains))
    if cloud is not None and "CERTIFICATE_VERIFY_FAILED" in words:
        hint = f"Name the file with the certificate's authority: {cloud.authority}."
        return FileServerUnreachable(sentence, hint)
    if "WRONG_VERSION_NUMBER" in words or "record layer" in words:
        hint = f"It does not speak TLS: set 'secure: false' beside its key{section}."
        return FileServerUnreachable(sentence, hint)
    if status in PASSING or (status is None and cloud is not None and any(map(_is_no_answer, chains))):
        hint = f"Check the address{section} and the network; then run the same command again."
        return PassingError(FileServerUnreachable(sentence, hint))
    if status in _DENIED:
        hint = f"Check the key for it{section}; it must be allowed to write and to read there."
    elif status in GONE:
        hint = f"Check the name of the bucket{section}, or make it."
    elif cloud is None:
        hint = "Check that the folder is there, or mounted, and that it may be written to."
    else:
        hint = f"Check the address and the key for it{section}; then run the same command again."
    return FileNotTaken(sentence, hint)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and those it came of, outermost first."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def status_of(error: BaseException) -> int | None:
    """Give the HTTP status of a storage's own answer, by how each cloud's package keeps it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore.exceptions.ClientError
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for status in (response, getattr(error, "status_code", None), getattr(error, "code", None)):
        if isinstance(status, int):  # azure.core.exceptions, google.api_core.exceptions
            return int(status)
    return None


def _is_no_answer(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(names & _NO_ANSWER)


def _reason(errors: Sequence[BaseException], status: int | None) -> str:
    """Give the first line of the last error's text, and the code of it."""
    for error in reversed(errors):
        reply = getattr(error, "response", None)
        stated = reply.get("Error", {}) if isinstance(reply, dict) else {}
        text = str(stated.get("Message") or error).strip()
        worded = _WORDED.search(text)
        text = worded[1] if worded else text
        codes = [stated.get("Code"), getattr(error, "error_code", None), status]
        if text:
            line = text.splitlines()[0]
            line = (" ".join(text.split()) if line.endswith(":") else line).rstrip(". ")
            names = dict.fromkeys(str(code) for code in codes if code and str(code) not in line)
            return f"{line} ({', '.join(names)})" if names else line
    return ""
