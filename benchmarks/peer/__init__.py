"""Parts of ``peft_peer.py``: variants of one model, and what is measured on them."""
