"""What tests of several modules share."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import settings

settings.register_profile("default", settings.get_profile("default"), deadline=None)  # machines may be slow
settings.load_profile("default")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch for inference, on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """A bucket of a real S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        store = fsspec.filesystem("s3")
        store.clear_instance_cache()  # of those that have looked for credentials before
        store.mkdir("sounds")
        yield "s3://sounds"
    server.stop()


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an index may lie."""
    if request.param == "disk":
        return str(tmp_path)
    bucket: str = request.getfixturevalue("bucket")
    return f"{bucket}/{tmp_path.name}/index"
