"""Tell the C library to keep freed memory: encoders and decoders run faster."""


def keep_freed_memory(keep: bool = True) -> bool:
    """Let this process keep the memory that it frees, to use it again. Returns whether the C library (glibc) can.

    By default (and again with ``keep`` false) the C library gives each big block back to the system. The kernel then
    clears every fresh block, which costs more than filling it: with the small layers of an encoder on a CPU, and with
    the windows of a decoder (a seventh of its time). Meant for processes that mainly encode or decode. Source:
    mallopt(3), which also says how far the thresholds grow by default.
    """
    import ctypes

    mmap_threshold, trim_threshold, limit = -3, -1, 2**30 if keep else 2**25
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(mmap_threshold, limit) and mallopt(trim_threshold, limit if keep else 2 * limit))
