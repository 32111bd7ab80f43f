"""One folder per op: ``reference`` reads like the paper, ``op`` is fast, the folder's name dispatches between them."""
