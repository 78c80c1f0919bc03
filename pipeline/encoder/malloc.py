"""What the C library does with memory that is freed."""


def keep_freed_memory(keep: bool = True) -> bool:
    """Let this process keep the memory that it frees, to use again; whether the C library (glibc) can.

    By default (and again with ``keep`` false) it gives each big block back to the system, and clearing fresh ones costs
    more than what fills them: the small layers of an encoder on a CPU (``python -m jobs.bench.encode`` compares), the
    windows of a decoder (a seventh of its time). For processes that mainly encode or decode. Source: mallopt(3), with
    what it says the thresholds grow to by default.
    """
    import ctypes

    mmap_threshold, trim_threshold, limit = -3, -1, 2**30 if keep else 2**25
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(mmap_threshold, limit) and mallopt(trim_threshold, limit if keep else 2 * limit))
