"""``earshot stop``: stop a job."""

from jobs.shared.options import Address, Job, Json
from jobs.shared.output import print_json, print_line


def stop(job: Job, address: Address = None, json: Json = False) -> None:
    """Stop a job on a Ray cluster. Finished batches stay; submit the job again to continue.

    Example: earshot stop earshot-my-index-1a2b3c4d-1
    """
    from jobs.shared.ray_jobs import connect

    cluster = connect(address)
    stopped = cluster.stop(job)
    if json:
        print_json([{"job": job, "stopped": stopped}])
    elif stopped:
        print_line(f"{job} is stopping; submit its configuration again to go on")
    else:
        print_line(f"{job} has already ended: {cluster.find(job).state}")
