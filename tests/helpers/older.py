"""Indexes from before there was a choice of rules for last windows."""

from pipeline.config import Config
from pipeline.index.tables import create_tables
from pipeline.run.prepare import describe_run


def create_older(config: Config, tables: str | None = None) -> Config:
    """Create an empty index, or the ``tables`` of a rebuild, whose settings name no rule. Returns ``config``."""
    layout = describe_run(config)
    del layout.settings["window"]["tail"]
    create_tables(
        tables or config.into,
        layout.settings,
        clip_dimension=layout.clip_dimension,
        frame_dimension=layout.frame_dimension,
    )
    return config
