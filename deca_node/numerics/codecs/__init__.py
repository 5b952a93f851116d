"""Codecs: float32 numbers to bytes and back, with the same bits on every device.

::

    base            what all codecs share: slices, checks and errors
    formats         the wire formats fp32, bf16, int8, int4 and topk, in torch
    places          which elements topk sends, and how their places are written
    table           which compiled code does a codec's work on which kind of device
    kernels         what compiled code can do for a codec
    native          int8, int4, topk and the mix in C, called through ctypes
    codec.c         the kernels of the codecs; groups.h holds one group's arithmetic
    mixing.c        the kernel of the mix
    fused           int8 and int4 on a CUDA device, in one pass each
    triton_kernels  the kernels behind fused
    versions.h      how C functions are compiled for several processors
"""
