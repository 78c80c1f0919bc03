"""Environment variables by which ``earshot submit`` tells a job about itself."""

JOB_VARIABLE = "EARSHOT_JOB"
"""The name of the job."""

RUN_VARIABLE = "EARSHOT_RUN"
"""The id of its run."""

PYTHON_VARIABLE = "EARSHOT_PYTHON"
"""The interpreter for its workers, if that is not the one of their node."""
