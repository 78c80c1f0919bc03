"""Hides credentials: every text that a person or a log may see passes through ``without_credentials``."""

import os
import re
from urllib.parse import quote

_NAMED = (
    r"(?:X-(?:Amz|Goog)-)?(?:Signature|Credential|Security-Token)|AWS_?Access_?Key_?Id|Access_?Key(?:_?Id)?|Account_?Key"
    r"|Shared_?Access_?Signature|(?:Session|Access|Refresh|SAS)_?Token|(?:(?:AWS|Client)_?)?Secret(?:_?(?:Access_?)?Key)?"
    r"|Private_?Key|Api_?Key|Password|Passwd|Passphrase|Passcode"
)
_PARAMETERS = (
    r"[\w.-]*(?:token|secret|password|passwd|passphrase|passcode|pwd|signature|credentials?|jwt|api[_-]?key|access[_-]?key)"
    r"|(?:[\w.-]*[_.-])?(?:auth|authorization|oauth|pass|pw|psw|hmac|sig|session_?id|sessid)|jsessionid|phpsessid|key"
)
"""Of a URL, whole names: ``auth`` is one, ``author`` is not."""
_CREDENTIALS = (
    # The user and the password of a URL; keys of object stores may hold slashes. A number there is a port.
    (re.compile(r"(?<=://)(?:[^/\s@:]+:(?!\d+/)[^\s@]+|[^/\s@]+)@"), "***@"),
    # What a URL, a connection string or a header calls by such a name, and what JSON or XML does.
    (re.compile(rf"(?<=[?&;])({_PARAMETERS})=[^&#\s]*[^&#\s:]", re.IGNORECASE), r"\1=***"),
    (re.compile(r"(?<=#)((?:access_|id_|refresh_)token)=[^&#\s]*[^&#\s:]", re.IGNORECASE), r"\1=***"),
    (re.compile(r"(?<=[?&;#])(session)=[\w+/=.~%-]{16,}", re.IGNORECASE), r"\1=***"),
    (re.compile(rf"(?<![\w-])({_NAMED})=[^&;,\s]*[^&;,\s:]", re.IGNORECASE), r"\1=***"),
    (re.compile(rf"""(["'](?:{_NAMED}|pwd|auth|jwt)["']\s*:\s*)(["'])(?:(?!\2).)+\2""", re.IGNORECASE), r"\1\2***\2"),
    (re.compile(rf"(<({_NAMED})>)[^<]+(?=</\2>)", re.IGNORECASE), r"\1***"),
    (re.compile(r"(?<![A-Za-z0-9-])(Bearer\s+)[A-Za-z0-9+/=._~-]{12,}", re.IGNORECASE), r"\1***"),
    (re.compile(r"(?<=[:=\"'])(\s*Basic\s+)[A-Za-z0-9+/=._~-]{12,}", re.IGNORECASE), r"\1***"),  # no file's name
    (re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"), "***"),
)
_SIGNED = re.compile(r"\?(?:[^\s#]*&)?Signature=[^\s#]*")
_OF_SIGNED = re.compile(r"(?<=[?&])(Policy|Key-Pair-Id)=[^&#\s]*[^&#\s:]")
"""What CloudFront puts into a URL beside the signature; elsewhere the names are nothing special."""
_SECRET_NAMES = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|_PWD$|CREDENTIAL|ACCESS_KEY|ACCOUNT_KEY|API_?KEY|JWT|CONNECTION_STRING"
)


def without_credentials(text: str) -> str:
    """``text`` with three stars for the credentials in it: those of URLs, connection strings and headers, those that
    have the name of one, and those that the environment holds, encoded for a URL or not."""
    text = _SIGNED.sub(lambda query: _OF_SIGNED.sub(r"\1=***", query[0]), text)
    for pattern, shown in _CREDENTIALS:
        text = pattern.sub(shown, text)
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_NAMES.search(name.upper()) and not _is_place(name.upper(), value):
            for written in (value, quote(value, safe="")):
                text = text.replace(written, "***")
    return text


def _is_place(name: str, value: str) -> bool:
    """Whether a variable says where a secret lies, and not what it is."""
    is_path = name.endswith("_CREDENTIALS") and (value.startswith("~") or os.path.exists(value))
    return is_path or name.endswith(("_PATH", "_FILE", "_DIR"))
