"""What the operations of peftx-kernels cost: cost model, cards, plain forms to compare with, timing, memory, tables."""
