"""Inputs that several files of tests share: of the library forms, and of the kernels in the interpreter."""
