"""Credentials are refused in configurations and manifests, and hidden in every message."""

import os
from pathlib import Path

import pytest

import pipeline
from pipeline.config import make_config
from pipeline.corpus.discover import list_corpus
from pipeline.credentials import without_credentials
from pipeline.errors import ConfigError, CorpusError, EarshotError, FileFailure
from pipeline.run.driver import index_corpus
from tests.helpers.contents import SECTIONS, content
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky


@pytest.mark.parametrize("key", ["sources", "into"])
@pytest.mark.parametrize(
    "url",
    [
        "https://host/a.wav?auth=hunter22",
        "https://host/a.wav?x=1&pwd=hunter22",
        "s3://name:hunter22@bucket/x",
        "https://host/a.wav?X-Amz-Credential=a&X-Amz-Signature=hunter22",
        "ftp://hunter22@h/",
    ],
)
def test_credentials_in_a_configuration_are_refused_and_not_shown(key: str, url: str) -> None:
    with pytest.raises(ConfigError, match="credentials belong in the environment") as raised:
        make_config({"sources": "x", "into": "y", key: url})
    assert "hunter22" not in str(raised.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hunter/22@bucket/x.wav",
        "https://host/a.wav?AWSAccessKeyId=a&Expires=1&Signature=hunter/22",
        "https://x.blob.core.windows.net/c/a.wav?sv=1&sig=hunter/22",
        "https://host/a.wav?auth=hunter/22",
    ],
)
def test_url_with_credentials_in_a_manifest_is_refused(uri: str, tmp_path: Path) -> None:
    manifest = tmp_path / "corpus.csv"
    manifest.write_text(f"uri\n{content(3)}\n{uri}\n")
    with pytest.raises(CorpusError, match=r"corpus.csv: row 2: .*: credentials belong in the environment") as raised:
        list_corpus([str(manifest)])
    assert "hunter" not in str(raised.value)
    manifest.write_text("uri\nsimplecache::s3://b/x.wav\n")
    with pytest.raises(CorpusError, match=r"corpus.csv: row 1: simplecache::s3://b/x.wav: URLs are not chained"):
        list_corpus([str(manifest)])


def test_path_of_a_secret_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "me.json"
    key.touch()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/me/.ray/auth_token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    monkeypatch.setenv("OTHER_CREDENTIALS", "/hunter22/aa==")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hunter22hunter22")
    said = f"cannot read /home/me/.ray/auth_token, {key}: "
    assert without_credentials(f"{said}hunter22hunter22 /hunter22/aa==") == f"{said}*** ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKIAX:ab/cd+ef@bucket/x", "s3://***@bucket/x"),
        ("http://127.0.0.1:9000/bucket/me@home.wav", "http://127.0.0.1:9000/bucket/me@home.wav"),
        ("s3://bucket/me@home.wav: token ring, key=C minor", "s3://bucket/me@home.wav: token ring, key=C minor"),
        (
            "<Key>a.wav</Key><AWSAccessKeyId>abc</AWSAccessKeyId>",
            "<Key>a.wav</Key><AWSAccessKeyId>***</AWSAccessKeyId>",
        ),
        ("DefaultEndpointsProtocol=https;AccountKey=ab/c==;x", "DefaultEndpointsProtocol=https;AccountKey=***;x"),
        (
            "SharedAccessSignature=sv=1 secret=hunter22, password=x",
            "SharedAccessSignature=*** secret=***, password=***",
        ),
        ('{"private_key": "---BEGIN", "bucket": "b"}', '{"private_key": "***", "bucket": "b"}'),
        ("{'secret_access_key': 'a\"b', 'n': 1}", "{'secret_access_key': '***', 'n': 1}"),
        ("Authorization: Bearer eyJhbGciOi.J9-x_y refused", "Authorization: Bearer *** refused"),
        ("AWS4-HMAC-SHA256 Credential=AKIA1/2/us, Signature=ab", "AWS4-HMAC-SHA256 Credential=***, Signature=***"),
        ("the key AKIAIOSFODNN7EXAMPLE is unknown", "the key *** is unknown"),
        ("https://h/a.wav?auth=ab&pwd=cd#t=1,2", "https://h/a.wav?auth=***&pwd=***#t=1,2"),
        ("https://h/a?X-Plex-Token=ab&x=1", "https://h/a?X-Plex-Token=***&x=1"),
        (
            "https://h/a?apikey=ab&access_token=cd&client_secret=ef",
            "https://h/a?apikey=***&access_token=***&client_secret=***",
        ),
        (
            "https://h/a?authorization=a&pass=b&passphrase=c&jwt=d",
            "https://h/a?authorization=***&pass=***&passphrase=***&jwt=***",
        ),
        (
            "https://h/a?user_pass=ab&jsessionid=cd&session_id=ef: no",
            "https://h/a?user_pass=***&jsessionid=***&session_id=***: no",
        ),
        (
            "https://h/a?pw=ab&psw=cd&passcode=ef&hmac=gh&db_pw=ij",
            "https://h/a?pw=***&psw=***&passcode=***&hmac=***&db_pw=***",
        ),
        (
            "https://d.cloudfront.net/a.wav?Policy=eyJT_-~&Signature=ab~-&Key-Pair-Id=APKA1&x=1: no",
            "https://d.cloudfront.net/a.wav?Policy=***&Signature=***&Key-Pair-Id=***&x=1: no",
        ),
        (
            "https://d/a?Signature=ab&Expires=1&Key-Pair-Id=APKA1 https://e/a?Policy=open",
            "https://d/a?Signature=***&Expires=1&Key-Pair-Id=*** https://e/a?Policy=open",
        ),
        ("https://h/a?session=0123456789abcdefg", "https://h/a?session=***"),
        ("https://h/cb#access_token=ab", "https://h/cb#access_token=***"),
        ("Server=h;Uid=me;Pwd=ab", "Server=h;Uid=me;Pwd=***"),
        ('{"pwd": "ab", "author": "cd"}', '{"pwd": "***", "author": "cd"}'),
        *(
            (innocent, innocent)
            for innocent in (
                "https://h/a?author=Ana&session=12&authority=x&bypass=1&sort_key=a&monkey=b&signal=c&passage=d",
                "https://h/a?keyboard=1&token_type=x&sv=2&se=3&code=44&page=5&compass=n",
                "https://h/a?Policy=open&Key-Pair-Id=7&pwm=1&swap=2&psweep=3&hmac_size=4&pathway=5",
                "PWD=/home/me, author=Ana, pass=3",
            )
        ),
        ("sent hunter%2F22%2Babc, hunter/22+abc", "sent ***, ***"),
    ],
)
def test_credentials_are_known_by_their_form(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter/22+abc")
    assert without_credentials(text) == shown


def test_no_message_holds_a_credential(flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_ACCESS_KEY", "topsecretvalue")
    text = "no: https://me:hunter22@host/a?x=1&Signature=hunter22&y=2 with topsecretvalue"
    clean = "no: https://***@host/a?x=1&Signature=***&y=2 with ***"
    assert str(EarshotError(text)) == clean
    assert FileFailure("read", "unreadable", text).message == clean
    put(f"{flaky}/a.wav", content(3).read_bytes())
    Flaky.errors["get_file"] = [PermissionError(text)]
    config = make_config({"sources": [flaky], "into": str(tmp_path / "index"), **SECTIONS})
    index_corpus(config, stages=in_place(WideEncoder()))
    failed = pipeline.open(config.into).to_arrow("files", where="status = 'failed'")
    assert failed["message"].to_pylist() == [clean]
    for file in Path(config.into).rglob("*"):
        if file.is_file():
            assert b"topsecretvalue" not in file.read_bytes()
    assert os.environ["MY_SECRET_ACCESS_KEY"] == "topsecretvalue"
