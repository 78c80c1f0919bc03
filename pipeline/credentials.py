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
"""Whole names of parameters in a URL: ``auth`` matches, ``author`` does not."""
_CREDENTIALS = (
    # The user and the password of a URL. Keys of object stores may hold slashes; a number there is a port.
    (re.compile(r"(?<=://)(?:[^/\s@:]+:(?!\d+/)[^\s@]+|[^/\s@]+)@"), "***@"),
    # Values with such a name in a URL, a connection string, a header, JSON or XML.
    (re.compile(rf"(?<=[?&;])({_PARAMETERS})=[^&#\s]*[^&#\s:]", re.IGNORECASE), r"\1=***"),
    (re.compile(r"(?<=#)((?:access_|id_|refresh_)token)=[^&#\s]*[^&#\s:]", re.IGNORECASE), r"\1=***"),
    (re.compile(r"(?<=[?&;#])(session)=[\w+/=.~%-]{16,}", re.IGNORECASE), r"\1=***"),
    (re.compile(rf"(?<![\w-])({_NAMED})=[^&;,\s]*[^&;,\s:]", re.IGNORECASE), r"\1=***"),
    (re.compile(rf"""(["'](?:{_NAMED}|pwd|auth|jwt)["']\s*:\s*)(["'])(?:(?!\2).)+\2""", re.IGNORECASE), r"\1\2***\2"),
    (re.compile(rf"(<({_NAMED})>)[^<]+(?=</\2>)", re.IGNORECASE), r"\1***"),
    (re.compile(r"(?<![A-Za-z0-9-])(Bearer\s+)[A-Za-z0-9+/=._~-]{12,}", re.IGNORECASE), r"\1***"),
    # Behind a mark, so that it is no name of a file.
    (re.compile(r"(?<=[:=\"'])(\s*Basic\s+)[A-Za-z0-9+/=._~-]{12,}", re.IGNORECASE), r"\1***"),
    (re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"), "***"),
)
_SIGNED = re.compile(r"\?(?:[^\s#]*&)?Signature=[^\s#]*")
_OF_SIGNED = re.compile(r"(?<=[?&])(Policy|Key-Pair-Id)=[^&#\s]*[^&#\s:]")
"""CloudFront puts these into a URL beside the signature; in other URLs, such names are harmless."""
_SECRET_NAMES = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|_PWD$|CREDENTIAL|ACCESS_KEY|ACCOUNT_KEY|API_?KEY|JWT|CONNECTION_STRING"
)


def without_credentials(text: str) -> str:
    """``text`` with three stars in place of each credential.

    Credentials are known by their form in URLs, connection strings and headers, by their name, or by their value, where
    the environment holds it (also encoded for a URL).
    """
    text = _SIGNED.sub(lambda query: _OF_SIGNED.sub(r"\1=***", query[0]), text)
    for pattern, shown in _CREDENTIALS:
        text = pattern.sub(shown, text)
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_NAMES.search(name.upper()) and not _is_place(name.upper(), value):
            for written in (value, quote(value, safe="")):
                text = text.replace(written, "***")
    return text


def _is_place(name: str, value: str) -> bool:
    """Whether a variable holds the path of a secret, and not the secret itself."""
    is_path = name.endswith("_CREDENTIALS") and (value.startswith("~") or os.path.exists(value))
    return is_path or name.endswith(("_PATH", "_FILE", "_DIR"))
